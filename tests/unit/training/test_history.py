"""Losses of updates as rows of the history."""

import pytest
import torch

from eagle.errors import InputError
from eagle.training.history import UpdateLosses, UpdateSums, check_finite, history_rows
from eagle.training.schedule import Schedule
from eagle.training.updates import Update

UPDATES = [Update(0, (0, 1, 2), (2, 0)), Update(0, (0, 1, 2), (1,))]


def losses(update: int, counted: int, *sums: float, norm: float = 0.5) -> UpdateLosses:
    values = UpdateSums(*torch.tensor(sums, dtype=torch.float64))
    return UpdateLosses(update, values, counted, torch.tensor(norm))


def test_a_row_has_means_over_the_counted_positions_of_its_update():
    schedule = Schedule(1.0, 0, 4)
    read = [losses(0, 10, 20.0, 30.0, 4.0, 2.5), losses(1, 0, 0.0, 0.0, 0.0, 0.0)]
    first, second = history_rows(read, UPDATES, [7, 8, 9], schedule, seconds=3.0)
    assert first == {
        "update": 0, "loss": 2.5, "regression": 2.0, "classification": 3.0, "top1": 0.4,
        "learning_rate": 1.0, "gradient_norm": 0.5, "tokens": 16, "masked_tokens": 10,
        "seconds": 3.0,
    }  # fmt: skip
    assert second["update"] == 1
    assert second["tokens"] == 8
    assert second["learning_rate"] == 0.75
    assert second["regression"] == 0  # no position counted


@pytest.mark.parametrize(("loss", "norm"), [(float("nan"), 1.0), (1.0, float("inf"))])
def test_a_loss_that_is_no_number_names_update_and_documents(tmp_path, loss, norm):
    (row,) = history_rows(
        [losses(0, 1, 1.0, 1.0, 0.0, loss, norm=norm)], UPDATES, [7, 8, 9], Schedule(1.0, 0, 4), 0.0
    )
    with pytest.raises(InputError, match=r"update 0: the loss is .*, on documents 2, 0 "):
        check_finite(row, UPDATES[0], tmp_path)
