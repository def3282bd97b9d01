"""Intervals that have a width with few trials, and none where one prompt says nothing of others."""

import numpy as np
import pytest

from eagle.evaluation.intervals import Rate, interval_over_prompts, wilson_interval


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (5, 5, 0.5655, 1)],
)
def test_a_rate_has_wilsons_interval(successes, trials, low, high):
    """Newcombe 1998, table I; and five of five, n / (n + z²)."""
    assert wilson_interval(successes, trials) == pytest.approx([low, high], abs=1e-4)
    assert Rate(successes, trials).interval == wilson_interval(successes, trials)


def test_a_rate_without_a_trial_has_neither_value_nor_interval():
    assert (Rate(0, 0).value, Rate(0, 0).interval) == (None, None)


def test_one_prompt_has_no_interval():
    assert interval_over_prompts(mean, [2.0], trials=100, seed=0) is None


def test_few_prompts_have_students_interval():
    """The mean's jackknife error is its standard error, so this is the textbook's interval."""
    low, high = interval_over_prompts(mean, [1.0, 2.0], trials=10**6, seed=0)
    assert (low, high) == pytest.approx((1.5 - 12.706 * 0.5, 1.5 + 12.706 * 0.5))
    low, _ = interval_over_prompts(mean, [1.0, 2.0], trials=10**6, seed=0, least=1.0)
    assert low == 1.0  # of tau, which is never below
    values = [1.0, 2.0, 4.0, 3.0, 2.0, 6.0, 1.0, 5.0, 3.0, 2.0, 4.0]
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    low, high = interval_over_prompts(mean, values, trials=10**6, seed=0)
    assert high - mean(values) == pytest.approx(2.228 * error, abs=0.01)


def test_prompts_that_all_agree_still_leave_a_width():
    low, high = interval_over_prompts(mean, [2.0] * 5, trials=60, seed=0)
    assert (low, high) == pytest.approx((2 - 0.1, 2 + 0.1))


def test_it_covers_the_true_mean_as_often_as_it_says():
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        values = generator.exponential(size=4).tolist()
        low, high = interval_over_prompts(mean, values, trials=10**6, seed=0, draws=100)
        covered += low <= 1 <= high
    assert covered / 400 > 0.88  # the plain bootstrap: 0.77


def test_pairs_stay_pairs_and_the_seed_alone_decides():
    one = [1.0, 5.0, 3.0, 8.0]
    other = [value + 1 for value in one]

    def difference(first, second):
        return mean(second) - mean(first)

    low, high = interval_over_prompts(difference, one, other, trials=1000, seed=0)
    assert (low, high) == pytest.approx((0.997, 1.003))
    drawn = [interval_over_prompts(mean, one, trials=100, seed=seed) for seed in (0, 0)]
    assert drawn[0] == drawn[1]
