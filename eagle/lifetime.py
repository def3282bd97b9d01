"""Processes that end with the one that started them: worker, torchrun, scripts.train and dvc.

Each watches its parent, and sends itself SIGTERM when that has ended. A process that a user's shell
started watches nothing, so that it may outlive the shell.

    python -m eagle.lifetime PID MODULE [ARGUMENT ...]

runs torchrun's module like `python -m MODULE`, as long as its parent is the process PID. When a
worker has failed, nothing is printed below the worker's own message.
"""

import logging
import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

POLL_SECONDS = 0.5
_DVC_STAGE = "DVC_STAGE"  # DVC sets it for the command of a stage


def end_with_dvc() -> None:
    """In a stage's process: end with the DVC that started it, if one did."""
    if _DVC_STAGE not in os.environ:
        return
    import psutil  # comes with DVC

    # a shell may stand between; DVC is the first ancestor that it did not give the variable
    process = psutil.Process()
    parents = {process: process.ppid()}
    while (process := process.parent()) and _has_stage(process):
        parents[process] = process.ppid()

    def lives() -> bool:
        try:
            return all(process.ppid() == parent for process, parent in parents.items())
        except psutil.NoSuchProcess:
            return False

    _watch(lives, "dvc")


def end_with_torchrun() -> None:
    """In a worker: end with the torchrun that started it, if one did."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_parent(os.getppid(), "torchrun")


def end_with_parent(pid: int, name: str) -> None:
    """End when the process `pid`, which started this one, has ended."""
    _watch(lambda: os.getppid() == pid, name)


def _has_stage(process) -> bool:
    import psutil

    try:
        return process.environ().get(_DVC_STAGE) == os.environ[_DVC_STAGE]
    except psutil.Error:  # another user's
        return False


def _watch(lives: Callable[[], bool], name: str) -> None:
    """Send this process SIGTERM when what started it no longer lives."""

    def wait() -> None:
        while lives():
            time.sleep(POLL_SECONDS)
        with suppress(OSError):  # whoever read the messages may have ended too
            print(f"{name} has ended; what it started ends too", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name=f"end with {name}", daemon=True).start()


def _run(module: str) -> None:
    """Run torchrun; exit with the code of its first worker that failed."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.CRITICAL)
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:  # it could not print anything itself
            name = signal.Signals(-failure.exitcode).name
            print(
                f"error: training process {rank} was ended by {name} (SIGKILL: usually the system, "
                "for want of memory)",
                file=sys.stderr,
                flush=True,
            )
        sys.exit(failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode)


if __name__ == "__main__":
    launcher, program, *arguments = sys.argv[1:]
    end_with_parent(int(launcher), "scripts.train")
    sys.argv[1:] = arguments
    _run(program)
