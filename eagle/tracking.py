"""What is shown and recorded during the work: progress, and scalars in a tracker. It changes no
result."""

import os
import sys
import time
from pathlib import Path
from typing import Any, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress


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
            rate_text = f"{rate:,.1f} {self.unit}/s"
            self.bar.update(self.task, completed=self.done, rate=rate_text, note=self.note)
        elif self.shown and now - self.last_line >= self.seconds:
            self.last_line = now
            left = (self.total - self.done) / rate
            print(
                f"{self.what}: {self.done:,.0f}/{self.total:,.0f} {self.unit}, "
                f"{rate:,.1f}/s, {left:,.0f} s left{'; ' + self.note if self.note else ''}",
                file=sys.stderr,
                flush=True,
            )

    def __exit__(self, *_error) -> None:
        if self.bar is not None:
            self.bar.stop()


def say_written(stage: str, started: float, *paths: Path, note: str = "") -> None:
    """Print the last line of a stage: what it wrote.

    Args:
        started: time.monotonic() at its start.
    """
    names = ", ".join(str(path) for path in paths)
    took = time.monotonic() - started
    print(f"{stage}: wrote {names} in {took:.1f} s{'; ' + note if note else ''}", flush=True)


class Tracker(Protocol):
    """An experiment tracker that receives the scalars of one run."""

    def scalars(self, values: dict[str, float], update: int) -> None:
        """Report values after an update; their names are GROUP/SERIES."""

    def close(self) -> None:
        """Send what is left; called once, at the end of the run."""


class NullTracker:
    """Reports nothing."""

    def scalars(self, values: dict[str, float], update: int) -> None:
        pass

    def close(self) -> None:
        pass


class ClearML:
    """A new ClearML task.

    It is offline with CLEARML_OFFLINE_MODE=1. Server and access key are those of the environment
    (CLEARML_API_HOST, CLEARML_API_ACCESS_KEY and so on) or of clearml.conf.
    """

    def __init__(self, project: str, task: str, parameters: dict[str, Any]):
        if not _clearml_file().is_file():
            # ClearML reads this setting from a file alone; with its reporting subprocess, close()
            # would take from 11 s to a minute
            folder = os.environ.get("CLEARML_CACHE_DIR", Path.home() / ".clearml")
            settings = Path(folder, "eagle.conf")
            settings.parent.mkdir(parents=True, exist_ok=True)
            settings.write_text("sdk { development { report_use_subprocess: false } }\n")
            os.environ["CLEARML_CONFIG_FILE"] = str(settings)
        from clearml import Task

        if os.environ.get("CLEARML_OFFLINE_MODE", "0") == "1":
            Task.set_offline(True)
        self.task = Task.init(
            project_name=project,
            task_name=task,
            reuse_last_task_id=False,
            auto_connect_frameworks=False,
            auto_resource_monitoring=False,
            auto_connect_arg_parser=False,
        )
        self.task.connect(parameters, name="parameters")

    def scalars(self, values: dict[str, float], update: int) -> None:
        for name, value in values.items():
            group, series = name.split("/")
            self.task.get_logger().report_scalar(group, series, value, update)

    def close(self) -> None:
        self.task.close()


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
