"""The folder of a run: its name, its neighbours, who may write it, and when it has finished."""

import os
import shutil
import socket

import pytest

from eagle.errors import InputError
from eagle.files import whole_folder
from eagle.training.run_folder import RunFolder
from eagle.training.run_identity import DRAFT_FOLDERS
from tests.tiny import flip


@pytest.fixture
def folder_of(make_config, tmp_path):
    """The run folder for some values and inputs."""

    def of(inputs=None, **values) -> RunFolder:
        config = make_config(**{"cpdir": tmp_path / "cp"} | values)
        return RunFolder.of(config, inputs or {"data": "1"})

    return of


def test_the_name_depends_on_what_decides_the_weights_alone(folder_of):
    name = folder_of().path.name
    assert folder_of(invocation="this one", save=7, clearml_task="x").path.name == name
    assert folder_of(verifier_model_path="moved", dataset_path="moved").path.name == name
    others = {
        folder_of(seed=1).path.name,
        folder_of(learning_rate=1e-3).path.name,
        folder_of({"data": "2"}).path.name,
    }
    assert len(others | {name}) == 4


def test_the_date_of_a_template_counts_where_this_run_renders_it(folder_of, tmp_path):
    for dataset, names in ((tmp_path / "rows.jsonl", 2), (tmp_path, 1)):
        dates = ("2024-07-26", "2025-01-31")
        runs = [folder_of(dataset_path=dataset, template_date=date) for date in dates]
        assert len({run.path.name for run in runs}) == names
        assert ("template_date" in runs[0].parameters) == (names == 2)


def leave_state(folder: RunFolder, finished: bool = False) -> str:
    """What a run leaves; returns its name."""
    folder.path.mkdir(parents=True)
    (folder.path / "state-000000004-0123456789abcdef.pt").touch()
    if finished:
        (folder.path / "last").mkdir()
    return folder.path.name


def test_a_new_run_names_the_unfinished_runs_that_it_does_not_continue(folder_of, capsys):
    leave_state(folder_of(seed=1), finished=True)
    with folder_of().held(None):
        assert capsys.readouterr().err == ""
    names = sorted(leave_state(folder_of(seed=seed)) for seed in range(2, 7))
    with folder_of().held(None):
        pass
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{', '.join(names[:3])} and 2 more; this run does not go on from them" in line
    assert "other parameters, data or code" in line
    with folder_of(seed=2).held(None):  # goes on from its own state
        pass
    assert capsys.readouterr().err == ""


def test_a_folder_that_cannot_be_written_is_refused(folder_of, tmp_path):
    (tmp_path / "file").touch()
    folder = folder_of(cpdir=tmp_path / "file")
    with (
        pytest.raises(InputError, match=r"--cpdir: .* cannot be written: Not a directory"),
        folder.held(None),
    ):
        pass


def test_a_folder_is_held_by_one_process_at_a_time(folder_of):
    folder = folder_of()
    with folder.held("first"):
        holder = f"process {os.getpid()} on {socket.gethostname()}"
        with (
            pytest.raises(InputError, match=f"{folder.path}: .* trained by {holder}, and two"),
            folder.held("second"),
        ):
            pass
        assert (folder.path / "invocation").read_text() == "first"
    with folder.held("third"):
        assert (folder.path / "invocation").read_text() == "third"


@pytest.fixture
def ended(folder_of) -> RunFolder:
    """The folder of a run that has ended."""
    folder = folder_of()
    leave_state(folder)
    for name in DRAFT_FOLDERS:
        with whole_folder(folder.path / name) as partial:
            (partial / "model.safetensors").write_bytes(bytes(100))
    for name in ("history.csv", "validations.csv"):
        (folder.path / name).write_text("update\n1\n")
    assert not folder.finished()
    folder.write_results({"validation_loss": 1.0}, 2.0)
    return folder


def test_a_run_has_finished_when_all_that_is_published_is_there(ended):
    assert ended.finished()
    shutil.rmtree(ended.path / "best")
    assert not ended.finished()


@pytest.mark.parametrize("name", ["best/model.safetensors", "metrics.json"])
def test_what_is_damaged_is_named_and_made_again(ended, name, capsys):
    flip(ended.path / name)
    assert not ended.finished()
    assert f"{ended.path / name}: " in capsys.readouterr().err
    assert not (ended.path / name).exists()
    assert (ended.path / "last").is_dir()
    assert not ended.finished()


@pytest.mark.parametrize("at", [0, 0.25, 0.5, 0.75, 1])
def test_a_damaged_list_is_made_again_and_the_drafts_stay(ended, at, capsys):
    flip(ended.path / "SHA256SUMS.txt", at)
    assert not ended.finished()
    assert "SHA256SUMS.txt" in capsys.readouterr().err
    assert all((ended.path / name).is_dir() for name in DRAFT_FOLDERS)
    assert not ended.finished()


def test_a_damaged_draft_of_an_unfinished_run_is_removed(ended, capsys):
    (ended.path / "SHA256SUMS.txt").unlink()
    flip(ended.path / "best/model.safetensors")
    assert not ended.finished()
    assert "its SHA-256 is" in capsys.readouterr().err
    assert not (ended.path / "best").exists()
