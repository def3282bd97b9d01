"""What is old goes, when somebody says so; what is in progress stays."""

import os
import time
from pathlib import Path

import pytest

from eagle.errors import InputError
from eagle.file_lock import file_lock
from eagle.training.on_disk import LOCK
from tools.prune import main


@pytest.fixture
def prune(tmp_path, monkeypatch):
    """Two runs, their states, and two caches, one of them old; runs the command with an answer."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EAGLE_CACHE", str(tmp_path / "cache"))
    for name in ("finished", "stopped"):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        for file in ("lock", "state-000000007-a.pt"):
            (run / file).write_bytes(b"x" * 1000)
    finished = tmp_path / "runs/finished"
    for name in ("best", "last"):
        (finished / name).mkdir()
    for name in ("metrics.json", "history.csv", "validations.csv", "provenance.json"):
        (finished / name).touch()
    for name, days in (("old", 9), ("new", 0)):
        folder = tmp_path / "cache" / name
        folder.mkdir(parents=True)
        (folder / "features.bin").write_bytes(b"x" * 5000)
        used = time.time() - days * 86_400
        os.utime(folder, (used, used))

    def prune(*arguments: str, answer: str | None = None) -> None:
        def said(_question: str) -> str:
            if answer is None:
                raise EOFError
            return answer

        monkeypatch.setattr("builtins.input", said)
        monkeypatch.setattr("sys.argv", ["prune", *arguments])
        main()

    return prune


def there() -> set[str]:
    names = {str(path.parent) for path in Path().glob("*/*/*") if path.is_file()}
    states = {str(path) for path in Path("runs").glob("*/state*")}
    return names | states


EVERYTHING = {
    "runs/finished", "runs/stopped", "cache/old", "cache/new",
    "runs/finished/state-000000007-a.pt", "runs/stopped/state-000000007-a.pt",
}  # fmt: skip


@pytest.mark.parametrize("answer", ["", "n", None])
def test_nothing_goes_without_a_yes(prune, answer, capsys):
    prune(answer=answer)
    assert there() == EVERYTHING
    said = capsys.readouterr().out
    assert "unfinished, would go on" in said
    assert "9 days" in said
    assert "nothing was removed" in said


def test_a_yes_removes_what_was_listed(prune, capsys):
    prune(answer="y")
    assert there() == set()
    assert "0.0 MB removed" in capsys.readouterr().out  # 12,000 bytes


@pytest.mark.parametrize(
    ("arguments", "gone"),
    [
        (["features", "--older", "7"], {"cache/old"}),
        (["states"], {"runs/finished/state-000000007-a.pt"}),
        (["features"], {"cache/old", "cache/new"}),
    ],
)
def test_kinds_and_ages_are_chosen(prune, arguments, gone):
    prune(*arguments, "--yes")
    assert there() == EVERYTHING - gone


def test_a_run_in_progress_keeps_its_folder_and_every_cache(prune, capsys):
    with file_lock(Path("runs/stopped/lock"), wait=False):
        prune("--yes")
    assert there() == {
        "runs/stopped", "runs/stopped/state-000000007-a.pt", "cache/old", "cache/new"
    }  # fmt: skip
    assert "stopped is in progress" in capsys.readouterr().out


def test_a_cache_that_is_read_stays(prune, capsys):
    """By a run of another checkout's, or on another machine."""
    with file_lock(Path("cache/old") / LOCK, wait=False):
        prune("--yes")
    assert {path.name for path in Path("cache").iterdir()} == {"old", "new"}
    assert "old is in progress; it and all feature caches stay" in capsys.readouterr().out


def test_a_cache_that_is_being_filled_stays(prune):
    filling = Path("cache/.abc.partial")
    filling.mkdir()
    with file_lock(filling / LOCK, wait=False):
        prune("--yes")
        assert filling.is_dir()
    prune("--yes")
    assert not filling.exists()


def test_an_unknown_kind_is_refused(prune):
    with pytest.raises(InputError, match="modles: no such kind; choose from runs, states"):
        prune("modles", "--yes")
