"""The learning rate of every update."""

import pytest

from eagle.errors import InputError
from eagle.training.schedule import Schedule


def test_it_rises_and_falls_in_straight_lines():
    schedule = Schedule(peak=2.0, warmup=4, total=12)
    rates = [schedule.learning_rate(update) for update in range(13)]
    assert rates[:5] == [0.4, 0.8, 1.2, 1.6, 2.0]
    assert rates[11] == pytest.approx(2 / 8)
    assert rates[12] == 0
    assert Schedule(1.0, 0, 5).learning_rate(0) == 1.0


def test_the_config_counts_ticks_of_all_processes(make_config):
    config = make_config(num_warmup_steps=8, num_training_steps=40, learning_rate=1e-3)
    assert Schedule.from_config(config, planned=7, world=4) == Schedule(1e-3, 2, 10)
    epochs = make_config(num_warmup_steps=8, learning_rate=1e-3)
    assert Schedule.from_config(epochs, planned=7, world=4) == Schedule(1e-3, 2, 7)
    with pytest.raises(InputError, match="warm-up of 8 updates is not shorter .* 7 updates"):
        Schedule.from_config(epochs, planned=7, world=1)
