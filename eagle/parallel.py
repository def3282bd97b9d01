"""One function over many items by several workers, in order and with few items in memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from eagle.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")
_function: Callable


def ordered_map(
    make_function: Callable[[], Callable[[Item], Result]], items: Iterable[Item], processes: int
) -> Iterator[Result]:
    """`map(make_function(), items)`, where each process makes the function for itself.

    Results come in the order of the items, whatever the number of processes; with one, the work
    is done in this very process.

    Raises:
        InputError: what the function raises, or a process was killed.
    """
    if processes == 1:
        yield from map(make_function(), items)
        return
    # spawned: a fork would copy locks that threads of torch and of tokenizers hold
    pool = ProcessPoolExecutor(
        processes, get_context("spawn"), initializer=_prepare, initargs=(make_function,)
    )
    try:
        yield from _in_order(pool, _call, items, processes)
    except BrokenProcessPool:
        raise InputError(
            "one of the processes was killed, most likely for want of memory; lower their number "
            "(machine.data_processes, or the command's --processes)"
        ) from None


def map_in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Iterator[Result]:
    """`map(function, items)` for a function that leaves Python's lock to others for most of its
    time. Items are made in this very thread; results come in their order."""
    return _in_order(ThreadPoolExecutor(threads), function, items, threads)


def _in_order(pool: Executor, function: Callable, items: Iterable, workers: int) -> Iterator:
    """Results of the pool's work, which ends with them; few items are in it at a time."""
    waiting: deque = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare(make_function: Callable[[], Callable]) -> None:
    global _function
    _function = make_function()


def _call(item):
    return _function(item)
