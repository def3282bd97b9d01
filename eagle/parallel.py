"""Apply a function to many items with several workers: in order, with few items in memory."""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from eagle.errors import InputError
from eagle.lifetime import ENDING, end_with_parent

Item = TypeVar("Item")
Result = TypeVar("Result")
_function: Callable


def ordered_map(
    make_function: Callable[[], Callable[[Item], Result]], items: Iterable[Item], processes: int
) -> Iterator[Result]:
    """`map(make_function(), items)` in processes; every process calls `make_function` once.

    Results are in the order of the items, for any number of processes. With one, all work is done
    in the calling process.

    Raises:
        InputError: the function raised it, or a process was killed.
    """
    if processes == 1:
        yield from map(make_function(), items)
        return
    # spawned, because a fork copies locks that threads of torch and of tokenizers have taken
    pool = ProcessPoolExecutor(
        processes, get_context("spawn"), initializer=_begin, initargs=(make_function, os.getpid())
    )
    try:
        yield from _in_order(pool, _call_function, items, processes)
    except BrokenProcessPool:
        raise InputError(
            "one of the processes was killed, most likely for lack of memory; lower their number "
            "(machine.data_processes, or the command's --processes)"
        ) from None


def map_in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Iterator[Result]:
    """`map(function, items)` in threads, for a function that mostly runs without Python's lock.

    Items are read in the calling thread; results are in the order of the items.
    """
    return _in_order(ThreadPoolExecutor(threads), function, items, threads)


def _in_order(pool: Executor, function: Callable, items: Iterable, workers: int) -> Iterator:
    """Yield the results in order, with at most `2 * workers` items in the pool; then close it."""
    pending: deque = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(make_function: Callable[[], Callable], parent: int) -> None:
    """Begin a process, which ends with its parent and leaves the terminal's signals to that."""
    global _function
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
    end_with_parent(parent, "the stage")
    _function = make_function()


def _call_function(item):
    return _function(item)
