"""Progress is plain lines without a terminal; ClearML is used only when it is configured."""

import io
import json
import signal
import sys
import time
import zipfile
from contextlib import suppress

import pytest

from eagle.errors import InputError
from eagle.tracking import ANSWER_SECONDS, ClearML, NullTracker, Progress, tracker_of
from tests.clearml_server import HTML, ClearMLServer, http, listener, unused_port


def test_plain_lines_name_rate_and_time_left(capsys):
    with Progress("train", 4, "updates", seconds=0) as progress:
        progress.advance(note="loss 2.0")
        time.sleep(0.01)
        progress.advance()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("train: 1/4 updates, ")
    assert lines[1].endswith("s left; loss 2.0")


def test_a_slow_rate_is_seconds_a_unit(capsys, monkeypatch):
    clock = iter([0.0, 40.0, 60.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with Progress("evaluate", 4, "prompts", seconds=10) as progress:
        progress.advance()
        progress.advance()
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "evaluate: 1/4 prompts, 40.0 s each, 120 s left",
        "evaluate: 2/4 prompts, 30.0 s each, 60 s left",
    ]


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


@pytest.fixture
def configured(unconfigured, monkeypatch):
    """Set keys; returns a function that sets the server's port."""
    for name in ("ACCESS", "SECRET"):
        monkeypatch.setenv(f"CLEARML_API_{name}_KEY", "key")
    monkeypatch.setenv("CLEARML_WEB_HOST", "http://127.0.0.1:9")
    monkeypatch.setenv("CLEARML_FILES_HOST", "http://127.0.0.1:9")
    return lambda port: monkeypatch.setenv("CLEARML_API_HOST", f"http://127.0.0.1:{port}")


def test_without_configuration_nothing_is_tracked(unconfigured, tmp_path):
    with tracker_of("project", "task", {}, tmp_path) as tracker:
        assert isinstance(tracker, NullTracker)
        tracker.scalars({"train/loss": 1.0}, 0)


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


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (None, "Read timed out"),
        (http("500 Internal Server Error", HTML), "error 500 .* Internal Server Error"),
        (http("200 OK", HTML), "Is this the ClearML API server"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "BadStatusLine"),
    ],
    ids=["silent", "500", "HTML", "no HTTP"],
)
def test_what_does_not_answer_as_clearml_ends_in_one_line(configured, capfd, answer, expected):
    with listener(answer) as port:
        configured(port)
        with pytest.raises(InputError, match=expected) as error:
            ClearML("project", "task", {})
    assert f"ClearML: http://127.0.0.1:{port} cannot be used: " in str(error.value)
    assert "CLEARML_OFFLINE_MODE=1" in str(error.value)
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""


def test_a_server_that_refuses_ends_in_one_line(configured, capfd):
    configured(unused_port())
    with pytest.raises(InputError, match="cannot be used: .* Connection refused"):
        ClearML("project", "task", {})
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("error", [None, "the loss is nan"])
def test_a_server_has_the_parameters_the_scalars_and_the_end(configured, error):
    server = ClearMLServer()
    configured(server.server_port)
    with suppress(InputError), ClearML("project", "task", {"seed": 17}) as tracker:
        tracker.scalars({"train/loss": 2.5}, 4)
        if error is not None:
            raise InputError(error)
    received = {name: body for name, body in server.requests}
    server.die()
    assert any(b'"17"' in body for name, body in server.requests if name == "tasks.edit")
    assert any(b'"value": 2.5' in body for name, body in server.requests)
    if error is None:
        assert "tasks.completed" in received
    else:
        assert error.encode() in received["tasks.failed"]
        assert "tasks.completed" not in received


def test_an_offline_session_has_what_a_run_came_to(unconfigured, monkeypatch, tmp_path):
    monkeypatch.setenv("CLEARML_OFFLINE_MODE", "1")
    page, picture, draft = tmp_path / "report.html", tmp_path / "loss.svg", tmp_path / "draft"
    page.write_text("<p>faster</p>")
    picture.write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    draft.mkdir()
    (draft / "config.json").write_text("{}")
    with tracker_of("project", "report", {"seed": 17}, tmp_path) as tracker:
        shown = {"report/report.html": page, "plots/loss": picture}
        tracker.results({"tau": 1.5}, shown, {"draft": draft})
    (session,) = tmp_path.glob("clearml/offline/*.zip")
    with zipfile.ZipFile(session) as files:
        names = files.namelist()
        task = json.loads(files.read("task.json"))
        events = [
            event for line in files.read("metrics.jsonl").splitlines() for event in json.loads(line)
        ]
        (stored,) = [name for name in names if name.endswith("/draft.zip")]
        with zipfile.ZipFile(io.BytesIO(files.read(stored))) as inside:
            assert inside.read("config.json") == b"{}"
    assert [artefact["key"] for artefact in task["execution"]["artifacts"]] == ["draft"]
    assert any(event.get("value") == 1.5 and event["variant"] == "tau" for event in events)
    for end in ("report_report.html_00000000.html", "plots_loss_00000000.svg"):
        assert any(name.endswith(end) for name in names)


LOST = "ClearML does not take all reports any more; the run goes on without them"


def own_lines(capfd) -> list[str]:
    """The lines on stderr that are not of ClearML's own log, which tells how its start went on."""
    return [line for line in capfd.readouterr().err.splitlines() if " - clearml." not in line]


def test_a_server_that_dies_neither_stops_the_run_nor_delays_it(configured, capfd):
    server = ClearMLServer()
    configured(server.server_port)
    with ClearML("project", "task", {}) as tracker:
        server.die()
        capfd.readouterr()
        began = time.monotonic()
        for update in range(1000):
            tracker.scalars({"train/loss": 2.5}, update)
        assert time.monotonic() - began < 1
        began = time.monotonic()
    assert time.monotonic() - began < ANSWER_SECONDS + 5
    assert own_lines(capfd) == [LOST]


def test_a_process_that_is_stopped_or_killed_does_not_delay_the_run(configured, capfd):
    server = ClearMLServer()
    configured(server.server_port)
    with ClearML("project", "task", {}) as tracker:
        tracker.process.send_signal(signal.SIGSTOP)
        capfd.readouterr()
        began = time.monotonic()
        for update in range(10_000):  # more than a pipe holds
            tracker.scalars({"train/loss": 2.5}, update)
        assert time.monotonic() - began < 2
        tracker.process.kill()
    server.die()
    assert own_lines(capfd) == [LOST]
