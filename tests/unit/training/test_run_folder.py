"""The folder of a run: its name, its neighbours, and what is published from it."""

import pytest

from eagle.errors import InputError
from eagle.training.run_folder import DRAFTS, RESULTS, RunFolder


@pytest.fixture
def folder_of(make_config, tmp_path):
    """The run folder for some values and inputs."""

    def of(inputs=None, **values) -> RunFolder:
        config = make_config(**{"cpdir": tmp_path / "cp"} | values)
        return RunFolder.of(config, inputs or {"data": "1"})

    return of


def test_the_name_depends_on_what_decides_the_weights_alone(folder_of):
    name = folder_of().path.name
    assert folder_of(output="elsewhere", save=7, clearml_task="x").path.name == name
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
    folder_of().create()
    assert capsys.readouterr().err == ""
    names = sorted(leave_state(folder_of(seed=seed)) for seed in range(2, 7))
    folder_of().create()
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{', '.join(names[:3])} and 2 more; this run does not go on from them" in line
    assert "other parameters, data or code" in line
    folder_of(seed=2).create()  # goes on from its own state
    assert capsys.readouterr().err == ""


def test_a_folder_that_cannot_be_written_is_refused(folder_of, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"--cpdir: .* cannot be written: Not a directory"):
        folder_of(cpdir=tmp_path / "file").create()


def test_drafts_and_results_are_published_and_states_are_not(folder_of, tmp_path):
    folder = folder_of()
    leave_state(folder)
    for name in DRAFTS:
        (folder.path / name).mkdir()
        (folder.path / name / "model.safetensors").write_text(name)
    folder.write_results({"validation_loss": 1.0}, 2.0)
    for name in ("history.csv", "validations.csv"):
        (folder.path / name).touch()
    folder.publish(tmp_path / "output")
    published = {path.name for path in (tmp_path / "output").iterdir()}
    assert published == {*DRAFTS, *RESULTS}
    assert (tmp_path / "output/best/model.safetensors").read_text() == "best"
