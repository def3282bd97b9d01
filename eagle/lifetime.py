"""How processes end: at a signal with one line, and with the process that started them.

A worker, torchrun, scripts.train and every other stage that DVC runs watch their parent, and send
themselves SIGTERM when that has ended. A process that a user's shell started watches nothing, so
that it may outlive the shell.

    python -m eagle.lifetime PID MODULE [ARGUMENT ...]

runs torchrun's module like `python -m MODULE`, as long as its parent is the process PID; with the
word slurm for a PID, as long as SLURM's process for a step on this node lives. When a worker has
failed, nothing is printed below the worker's own message.
"""

import logging
import os
import runpy
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

POLL_SECONDS = 0.5
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""What asks a process to end: a scheduler, Ctrl-C, and a terminal that is closed."""
_MEANINGS = {
    signal.SIGKILL: "most likely by the system, for want of memory; dmesg says so then",
    signal.SIGBUS: "a file in memory cannot be read or written: is a disk full or damaged?",
}
_DVC_STAGE = "DVC_STAGE"  # DVC sets it for the command of a stage


def at_ending_signals(handler: Callable) -> dict[int, Any]:
    """Have a handler for the signals in ENDING; one that is ignored, as under nohup, stays so.

    Returns:
        The handlers before, by signal.
    """
    before = {number: signal.getsignal(number) for number in ENDING}
    before = {number: old for number, old in before.items() if old is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, handler)
    return before


def end_in_one_line(name: str, leave: Callable[[int], NoReturn] = sys.exit) -> None:
    """End at a signal of ENDING with a line that has this name, and the exit code of a shell.

    Args:
        leave: sys.exit ends as after an error: temporary files are removed; os._exit at once, as
            for one of several processes, which would wait for the others.
    """

    def end(number: int, _frame: object) -> None:
        line = f"{name}: ended by {signal.Signals(number).name}\n"
        with suppress(OSError):
            os.write(sys.stderr.fileno(), line.encode())  # print may be at work just now
        leave(128 + number)

    at_ending_signals(end)


def ended_by(number: int) -> str:
    """For messages: the name of a signal that ended a process, and what it usually means."""
    name = signal.Signals(number).name
    return f"{name} ({_MEANINGS[number]})" if number in _MEANINGS else name


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
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError

    logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.CRITICAL)
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:  # it could not print anything itself
            print(
                f"error: training process {rank} was ended by {ended_by(-failure.exitcode)}",
                file=sys.stderr,
                flush=True,
            )
        sys.exit(failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode)
    except SignalException as error:  # the workers have ended, and have said what they saved
        sys.exit(128 + error.sigval)
    except RendezvousError as error:
        print(
            f"error: {socket.gethostname()}: torchrun did not meet those of the other nodes "
            f"({error or type(error).__name__}); every node must reach the first one by its name",
            file=sys.stderr,
            flush=True,
        )
        sys.exit(1)


if __name__ == "__main__":
    launcher, program, *arguments = sys.argv[1:]
    if launcher == "slurm":
        end_with_parent(os.getppid(), "the job's step")
    else:
        end_with_parent(int(launcher), "scripts.train")
    sys.argv[1:] = arguments
    _run(program)
