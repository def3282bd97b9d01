"""What is shown and recorded while work goes on: progress, ClearML. It changes no result."""

import os
import sys
import time
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress


class Progress:
    """A progress bar with rate and time left; plain lines where stderr is not a terminal.

    Under torchrun only rank 0 shows one.
    """

    def __init__(self, what: str, total: float, unit: str, seconds: float = 10.0):
        """Args: seconds: time between plain lines."""
        self.what, self.total, self.unit, self.seconds = what, total, unit, seconds
        self.done, self.note = 0.0, ""
        self.shown = os.environ.get("RANK", "0") == "0"
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
        """Say that `amount` more units are done; `note` stands at the end of the line until
        another comes."""
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
    """The one line with which a stage ends.

    Args: started: time.monotonic() at its start.
    """
    names = ", ".join(str(path) for path in paths)
    took = time.monotonic() - started
    print(f"{stage}: wrote {names} in {took:.1f} s{'; ' + note if note else ''}", flush=True)


class ClearML:
    """ClearML scalars when its environment variables or its file configure it; nothing otherwise.

    Offline with CLEARML_OFFLINE_MODE=1; online with CLEARML_API_HOST and an access key, or a
    clearml.conf.
    """

    def __init__(self, project: str, task: str, parameters: dict[str, Any]):
        self.task = None
        if os.environ.get("RANK", "0") != "0" or not _clearml_is_configured():
            return
        if not _clearml_file().is_file():
            # ClearML reads this setting from a file alone; its reporting subprocess makes
            # close() take from 11 s to a minute
            own = os.environ.get("CLEARML_CACHE_DIR", Path.home() / ".clearml")
            settings = Path(own, "eagle.conf")
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
        """Report scalars; a name is GROUP/SERIES."""
        if self.task is not None:
            for name, value in values.items():
                group, series = name.split("/")
                self.task.get_logger().report_scalar(group, series, value, update)

    def close(self) -> None:
        if self.task is not None:
            self.task.close()


def _clearml_is_configured() -> bool:
    return (
        os.environ.get("CLEARML_OFFLINE_MODE", "0") == "1"
        or bool(os.environ.get("CLEARML_API_ACCESS_KEY"))
        or _clearml_file().is_file()
    )


def _clearml_file() -> Path:
    """Where ClearML looks for the user's configuration."""
    return Path(os.environ.get("CLEARML_CONFIG_FILE", Path.home() / "clearml.conf"))
