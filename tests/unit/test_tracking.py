"""Progress is plain lines without a terminal; ClearML is used only when it is configured."""

import sys
import time

import pytest

from eagle import tracking
from eagle.tracking import ClearML, Progress


def test_plain_lines_name_rate_and_time_left(capsys):
    with Progress("train", 4, "updates", seconds=0) as progress:
        progress.advance(note="loss 2.0")
        time.sleep(0.01)
        progress.advance()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("train: 1/4 updates, ")
    assert lines[1].endswith("s left; loss 2.0")


def test_lines_come_no_oftener_than_asked(capsys):
    with Progress("train", 1000, "updates", seconds=60) as progress:
        for _ in range(1000):
            progress.advance()
    assert capsys.readouterr().err == ""


def test_only_rank_0_speaks(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    with Progress("train", 2, "updates", seconds=0) as progress:
        progress.advance()
    assert capsys.readouterr().err == ""


def test_without_configuration_clearml_is_not_even_imported(monkeypatch, tmp_path):
    for name in ("CLEARML_OFFLINE_MODE", "CLEARML_API_ACCESS_KEY", "CLEARML_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "clearml", None)  # an import would raise
    clearml = ClearML("project", "task", {})
    assert clearml.task is None
    clearml.scalars({"train/loss": 1.0}, 0)
    clearml.close()


@pytest.mark.parametrize(
    ("name", "value"),
    [("CLEARML_OFFLINE_MODE", "1"), ("CLEARML_API_ACCESS_KEY", "key")],
)
def test_the_pages_variables_configure_clearml(monkeypatch, tmp_path, name, value):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CLEARML_CONFIG_FILE", raising=False)
    assert not tracking._clearml_is_configured()
    monkeypatch.setenv(name, value)
    assert tracking._clearml_is_configured()
