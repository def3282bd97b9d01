"""Order, dealing, schedule and noise: what makes a run the same on any number of processes."""

from collections import Counter

import pytest
import torch

from eagle.config import TrainCommand
from eagle.trainer import deal, input_noise, schedule, updates_of


def command(**values) -> TrainCommand:
    return TrainCommand(verifier_model_path="v", dataset_path="d", cpdir="c", **values)


def test_every_document_comes_once_an_epoch_in_a_new_order():
    updates = list(updates_of(10, 3, 4, seed=0))
    assert [len(documents) for _, documents in updates] == [4, 4, 2] * 3
    orders = [[d for e, held in updates if e == epoch for d in held] for epoch in range(3)]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert updates == list(updates_of(10, 3, 4, seed=0))
    assert updates != list(updates_of(10, 3, 4, seed=1))


@pytest.mark.parametrize("slots", [1, 2, 4, 8])
def test_documents_are_dealt_whole_and_evenly(slots):
    lengths = [7, 100, 30, 30, 20, 60, 5, 9]
    dealt = deal(list(range(8)), lengths, slots)
    assert Counter(d for held in dealt for d in held) == Counter(range(8))
    filled = [sum(lengths[d] for d in held) for held in dealt]
    assert max(filled) <= max(100, 2 * sum(lengths) / slots)


def test_more_slots_than_documents_leaves_slots_empty():
    assert sorted(map(len, deal([3, 4], [0, 0, 0, 5, 6], 4))) == [0, 0, 1, 1]


def test_the_schedule_rises_and_falls_in_a_line():
    factors = [schedule(update, 4, 12) for update in range(12)]
    assert factors[:4] == [0.2, 0.4, 0.6, 0.8]
    assert factors[4] == 1.0
    assert factors[-1] == pytest.approx(1 / 8)
    assert schedule(12, 4, 12) == 0
    assert schedule(0, 0, 5) == 1.0


def test_noise_is_drawn_from_seed_epoch_and_document_alone():
    shape = (256, 8)
    noise = input_noise(shape, command(seed=1), 0, 5)
    assert torch.equal(noise, input_noise(shape, command(seed=1), 0, 5))
    for other in (
        input_noise(shape, command(seed=2), 0, 5),
        input_noise(shape, command(seed=1), 1, 5),
        input_noise(shape, command(seed=1), 0, 6),
    ):
        assert not torch.equal(noise, other)
    assert -0.1 <= noise.min() < -0.09 < 0.09 < noise.max() <= 0.1
    scaled = input_noise(shape, command(seed=1, noise_form="length_scaled"), 0, 5)
    torch.testing.assert_close(scaled, noise * 2)
