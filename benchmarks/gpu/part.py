"""One part of the benchmark, in a process of its own."""

import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.gpu.scale import Scale
from eagle.errors import one_line

Report = Callable[..., None]
"""Takes what was measured, by name; what was reported stays when the part fails afterwards."""
Measure = Callable[[Scale, Report], None]


class NotHere(Exception):
    """This machine lacks what the part needs."""


def run_part(measure: Measure, scale: Scale, seconds: float) -> dict:
    """Measure, for at most some seconds.

    A fault of the device ends all work of its process, and a full memory stays full. So each part
    has a process, forked from this one, which has imported everything and must never use the
    device.

    Returns:
        What was reported, with `seconds`, and with `error` or `skipped` where it did not end well.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(measure, scale, sender))
    began = time.monotonic()
    process.start()
    sender.close()
    found: dict = {}
    while receiver.poll(max(0.0, began + seconds - time.monotonic())):
        try:
            found |= receiver.recv()
        except EOFError:
            process.join()
            if process.exitcode:
                found["error"] = f"the process ended with {process.exitcode}"
            break
    else:
        found["error"] = f"stopped after its {seconds:.0f} seconds"
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
    return found | {"seconds": round(time.monotonic() - began, 1)}


def _work(measure: Measure, scale: Scale, sender: Connection) -> None:
    os.setpgid(0, 0)  # what it starts ends with it

    def report(**measured: object) -> None:
        sender.send(measured)

    try:
        measure(scale, report)
    except NotHere as reason:
        report(skipped=str(reason))
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        at = traceback.extract_tb(error.__traceback__)[-1]
        said = f"{type(error).__name__}: {one_line(error)}"
        report(error=f"{said} ({Path(at.filename).name}:{at.lineno})")
