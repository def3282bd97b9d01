"""What is shown and recorded of the work: progress, and numbers and files in a tracker. It changes
no result."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from eagle.errors import InputError


class Progress:
    """A progress bar with rate and time left; plain lines where stderr is not a terminal.

    Under torchrun only rank 0 shows it.
    """

    def __init__(self, what: str, total: float, unit: str, seconds: float = 10.0):
        """Args: seconds: time between plain lines."""
        self.what, self.total, self.unit, self.seconds = what, total, unit, seconds
        self.done, self.note = 0.0, ""
        self.shown = _is_rank_0()
        self.bar = None

    def __enter__(self) -> Self:
        self.started = self.last_line = time.monotonic()
        if self.shown and sys.stderr.isatty():
            self.bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
            )
            self.task = self.bar.add_task(self.what, total=self.total, rate="", note="")
            self.bar.start()
        return self

    def advance(self, amount: float = 1, note: str = "") -> None:
        """Add `amount` to the units that are done. `note` is shown at the end of the line, until
        the next note."""
        self.done += amount
        self.note = note or self.note
        now = time.monotonic()
        rate = self.done / max(now - self.started, 1e-9)
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done, rate=_rate(rate), note=self.note)
        elif self.shown and now - self.last_line >= self.seconds:
            self.last_line = now
            left = (self.total - self.done) / rate
            print(
                f"{self.what}: {self.done:,.0f}/{self.total:,.0f} {self.unit}, "
                f"{_rate(rate)}, {left:,.0f} s left{'; ' + self.note if self.note else ''}",
                file=sys.stderr,
                flush=True,
            )

    def __exit__(self, *_error) -> None:
        if self.bar is not None:
            self.bar.stop()


def _rate(rate: float) -> str:
    """Units a second, or seconds a unit: always a number that says something."""
    return f"{rate:,.1f}/s" if rate >= 1 else f"{1 / rate:,.1f} s each"


def say_written(stage: str, started: float, *paths: Path, note: str = "") -> None:
    """Print the last line of a stage: what it wrote.

    Args:
        started: time.monotonic() at its start.
    """
    names = ", ".join(str(path) for path in paths)
    took = time.monotonic() - started
    print(f"{stage}: wrote {names} in {took:.1f} s{'; ' + note if note else ''}", flush=True)


class Tracker(Protocol):
    """An experiment tracker that receives the scalars of one run, within a `with` block.

    Once it is made, it neither stops the run nor delays it.
    """

    def scalars(self, values: dict[str, float], update: int) -> None:
        """Report values after an update; their names are GROUP/SERIES."""

    def results(
        self, values: dict[str, float], shown: dict[str, Path], kept: dict[str, Path]
    ) -> None:
        """Report what a run came to.

        Args:
            values: of the run as a whole, by name.
            shown: pictures (.svg) and pages (.html), by GROUP/NAME.
            kept: files and folders that the tracker stores, by name.
        """

    def __enter__(self) -> Self: ...

    def __exit__(self, kind, error: BaseException | None, traceback) -> None:
        """Send what is left, and whether the run failed."""


class NullTracker:
    """Reports nothing."""

    def scalars(self, values: dict[str, float], update: int) -> None:
        pass

    def results(
        self, values: dict[str, float], shown: dict[str, Path], kept: dict[str, Path]
    ) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error) -> None:
        pass


# Seconds that ClearML's server has to answer: at the start for the task, at the end for what is
# left to send.
ANSWER_SECONDS = 20
UPLOAD_SECONDS = 600  # that it has for the files of a run's results
_READY = "ready"


class ClearML:
    """A new ClearML task, in a process of its own.

    ClearML waits without end for a server that does not answer: when it starts, when it closes and
    when its process ends. Its own process can be ended instead.

    It is offline with CLEARML_OFFLINE_MODE=1. Server and access key are those of the environment
    (CLEARML_API_HOST, CLEARML_API_ACCESS_KEY and so on) or of clearml.conf.
    """

    def __init__(self, project: str, task: str, parameters: dict[str, Any]):
        """Raises: InputError: the server does not answer, or not as ClearML's."""
        root = str(Path(__file__).resolve().parents[1])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        environment = os.environ | {"PYTHONPATH": path}
        environment.pop("TORCHELASTIC_RUN_ID", None)  # its parent is not torchrun
        program = "from eagle.tracking import report_to_clearml; report_to_clearml()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, *sys.argv], env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
            start_new_session=True,  # it outlives a signal to this process's group, to send the end
        )  # fmt: skip
        self.unsent = b""
        self.dropped = False
        self.patience = 2 * ANSWER_SECONDS  # its process ends within its own limit, if it runs
        with suppress(BrokenPipeError):
            self._write(_line({"project": project, "task": task, "parameters": parameters}))
        answer = self.process.stdout.readline().decode().strip()
        if answer != _READY:
            raise InputError(
                f"ClearML: {answer or 'its process ended without a message'}; correct "
                "CLEARML_API_HOST and the keys (or clearml.conf), set CLEARML_OFFLINE_MODE=1 to "
                "report to files, or unset CLEARML_API_ACCESS_KEY to train without ClearML"
            )
        os.set_blocking(self.process.stdin.fileno(), False)

    def __enter__(self) -> Self:
        return self

    def scalars(self, values: dict[str, float], update: int) -> None:
        self._send({"values": values, "update": update})

    def results(
        self, values: dict[str, float], shown: dict[str, Path], kept: dict[str, Path]
    ) -> None:
        self.patience += UPLOAD_SECONDS
        files = {"shown": shown, "kept": kept}
        paths = {kind: {n: str(path) for n, path in named.items()} for kind, named in files.items()}
        self._send({"results": values, **paths})

    def __exit__(self, _kind, error: BaseException | None, _traceback) -> None:
        self._send({"failed": str(error) if error else None})
        self.process.stdin.close()
        try:
            if self.process.wait(self.patience) != 0:
                self._drop()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self._drop()

    def _send(self, message: dict) -> None:
        """Write a message to the process; drop it if the process has ended or does not read."""
        try:
            self.unsent = self.unsent[self._write(self.unsent) :]
            if self.unsent:  # the end of the message before
                self._drop()
            else:
                line = _line(message)
                self.unsent = line[self._write(line) :]
        except BrokenPipeError:
            self._drop()

    def _write(self, line: bytes) -> int:
        """Write what the pipe has room for; returns the number of bytes."""
        return self.process.stdin.write(line) or 0

    def _drop(self) -> None:
        """Say, once, that reports are lost."""
        if not self.dropped:
            self.dropped = True
            print(
                "ClearML does not take all reports any more; the run goes on without them",
                file=sys.stderr,
                flush=True,
            )


def _line(message: dict) -> bytes:
    return json.dumps(message).encode() + b"\n"


def report_to_clearml() -> None:
    """The process of `ClearML`: reports the messages from stdin until one says how the run ended.

    Prints `ready` when the task is there, or one line that says why it is not.
    """
    del sys.argv[0]  # of python -c: the task shows the training command
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what ClearML prints is for the user

    def end(answer: str, code: int) -> None:
        """End at once, whatever ClearML's threads wait for."""
        with suppress(OSError):
            sys.stdout.flush()
            print(answer, file=answers, flush=True)
        os._exit(code)

    settings = json.loads(sys.stdin.readline())
    if not _clearml_file().is_file():
        _write_clearml_file()
    from clearml import Task
    from clearml.backend_api import Session

    server = Session.get_api_server_host()
    limit = threading.Timer(
        ANSWER_SECONDS, end, (f"{server} does not answer within {ANSWER_SECONDS} seconds", 1)
    )
    limit.start()
    try:
        if os.environ.get("CLEARML_OFFLINE_MODE", "0") == "1":
            Task.set_offline(True)
        else:
            Session(http_retries_config={"total": 0})  # a task would try to log in for hours
        task = Task.init(
            project_name=settings["project"],
            task_name=settings["task"],
            reuse_last_task_id=False,
            auto_connect_frameworks=False,
            auto_resource_monitoring=False,
            auto_connect_arg_parser=False,
        )
        task.connect(settings["parameters"], name="parameters")
        # a task that is aborted on its page ends the training, whose state is saved
        task.register_abort_callback(partial(os.kill, os.getppid(), signal.SIGTERM))
    except Exception as error:  # of any type, as what answers may be anything
        reason = re.sub(r".*\(Caused by (.*)\)", r"\1", " ".join(str(error).split()))
        end(f"{server} cannot be used: {reason}", 1)
    limit.cancel()
    print(_READY, file=answers, flush=True)

    failed = "its process was killed"
    for line in sys.stdin:
        if not line.endswith("\n"):  # cut off where the process was killed
            break
        message = json.loads(line)
        if "failed" in message:
            failed = message["failed"]
        elif "results" in message:
            _report_results(task, **message)
        else:
            for name, value in message["values"].items():
                group, series = name.split("/")
                task.get_logger().report_scalar(group, series, value, message["update"])
    threading.Timer(ANSWER_SECONDS, end, ("", 1)).start()
    if failed:
        task.flush(wait_for_uploads=True)
        task.mark_failed(status_reason=failed)
    else:
        task.close()
    end("", 0)


def _report_results(task: Any, results: dict, shown: dict, kept: dict) -> None:
    """Report a run's values and files to a ClearML task."""
    logger = task.get_logger()
    for name, value in results.items():
        logger.report_single_value(name, value)
    for name, path in shown.items():
        report = logger.report_image if path.endswith(".svg") else logger.report_media
        group, series = name.split("/")
        report(group, series, iteration=0, local_path=path)
    for name, path in kept.items():
        task.upload_artifact(name, path, wait_on_upload=True)


def _write_clearml_file() -> None:
    """Write the one setting that ClearML reads from a file alone."""
    folder = os.environ.get("CLEARML_CACHE_DIR", Path.home() / ".clearml")
    settings = Path(folder, "eagle.conf")
    settings.parent.mkdir(parents=True, exist_ok=True)
    # with its reporting subprocess, closing would take from 11 s to a minute
    settings.write_text("sdk { development { report_use_subprocess: false } }\n")
    os.environ["CLEARML_CONFIG_FILE"] = str(settings)


def tracker_of(project: str, task: str, parameters: dict[str, Any], folder: Path) -> Tracker:
    """ClearML when it is configured, on rank 0; else a tracker that reports nothing.

    Args:
        folder: for the files of an offline session, unless CLEARML_CACHE_DIR names another.
    """
    if not _is_rank_0() or not _clearml_is_configured():
        return NullTracker()
    os.environ.setdefault("CLEARML_CACHE_DIR", str(folder.resolve()))
    return ClearML(project, task, parameters)


def _is_rank_0() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _clearml_is_configured() -> bool:
    return (
        os.environ.get("CLEARML_OFFLINE_MODE", "0") == "1"
        or bool(os.environ.get("CLEARML_API_ACCESS_KEY"))
        or _clearml_file().is_file()
    )


def _clearml_file() -> Path:
    """Where ClearML looks for the user's configuration."""
    return Path(os.environ.get("CLEARML_CONFIG_FILE", Path.home() / "clearml.conf"))
