"""Progress is plain lines without a terminal; ClearML is used only when it is configured."""

import sys
import time

import pytest

from eagle.tracking import ClearML, NullTracker, Progress, tracker_of


def test_plain_lines_name_rate_and_time_left(capsys):
    with Progress("train", 4, "updates", seconds=0) as progress:
        progress.advance(note="loss 2.0")
        time.sleep(0.01)
        progress.advance()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("train: 1/4 updates, ")
    assert lines[1].endswith("s left; loss 2.0")


def test_lines_are_printed_no_more_often_than_configured(capsys):
    with Progress("train", 1000, "updates", seconds=60) as progress:
        for _ in range(1000):
            progress.advance()
    assert capsys.readouterr().err == ""


def test_only_rank_0_prints(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    with Progress("train", 2, "updates", seconds=0) as progress:
        progress.advance()
    assert capsys.readouterr().err == ""


@pytest.fixture
def unconfigured(monkeypatch, tmp_path):
    """A machine without ClearML's configuration, on which importing it would raise."""
    for name in ("CLEARML_OFFLINE_MODE", "CLEARML_API_ACCESS_KEY", "CLEARML_CONFIG_FILE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLEARML_CACHE_DIR", str(tmp_path / "clearml"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "clearml", None)


def test_without_configuration_nothing_is_tracked(unconfigured, tmp_path):
    tracker = tracker_of("project", "task", {}, tmp_path)
    assert isinstance(tracker, NullTracker)
    tracker.scalars({"train/loss": 1.0}, 0)
    tracker.close()


@pytest.mark.parametrize("how", ["CLEARML_OFFLINE_MODE", "CLEARML_API_ACCESS_KEY", "clearml.conf"])
def test_clearml_is_chosen_by_its_variables_or_file_on_rank_0_alone(
    unconfigured, monkeypatch, tmp_path, how
):
    started = []
    monkeypatch.setattr(ClearML, "__init__", lambda self, *arguments: started.append(arguments))
    if how == "clearml.conf":
        (tmp_path / how).touch()
    else:
        monkeypatch.setenv(how, "1")
    assert isinstance(tracker_of("project", "task", {"seed": 1}, tmp_path), ClearML)
    assert started == [("project", "task", {"seed": 1})]
    monkeypatch.setenv("RANK", "1")
    assert isinstance(tracker_of("project", "task", {}, tmp_path), NullTracker)
