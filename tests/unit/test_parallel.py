"""Order, errors and little in flight, whatever the number of workers."""

import os
from functools import partial

import pytest

from eagle.errors import InputError
from eagle.parallel import map_in_threads, ordered_map


def make_square(refused: int):
    def square(number: int) -> int:
        if number == refused:
            raise InputError(f"{number} is refused")
        if number == -1:
            os._exit(9)
        return number * number

    return square


@pytest.mark.parametrize(
    "mapped",
    [partial(ordered_map, processes=1), partial(ordered_map, processes=2),
     lambda make, items: map_in_threads(make(), items, 2)],
    ids=["one process", "two processes", "two threads"],
)  # fmt: skip
def test_results_come_in_order_and_little_is_read_ahead(mapped):
    taken = []

    def numbers():
        for number in range(30):
            taken.append(number)
            yield number

    results = mapped(partial(make_square, -2), numbers())
    assert next(results) == 0
    assert len(taken) <= 5
    assert list(results) == [number * number for number in range(1, 30)]


def test_an_error_and_a_killed_process_are_one_message():
    with pytest.raises(InputError, match="3 is refused"):
        list(ordered_map(partial(make_square, 3), range(9), 2))
    with pytest.raises(InputError, match="3 is refused"):
        list(map_in_threads(make_square(3), range(9), 2))
    with pytest.raises(InputError, match="was killed.*machine.data_processes"):
        list(ordered_map(partial(make_square, -2), [1, -1, 2], 2))
