"""95% intervals that hold with few trials: of a rate, and of a figure over prompts."""

from collections.abc import Callable, Sequence
from math import inf, sqrt
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

LEVEL = 0.95
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
STUDENT_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Student's t at 95% for 1 to 9 degrees of freedom; from 10 on, `_student_t` has an expansion."""

Interval = list[float]
"""The lower and the upper bound."""


class Rate(NamedTuple):
    """Successes of trials. Which trials these are says who counted them."""

    successes: int
    trials: int

    @property
    def value(self) -> float | None:
        """None without a trial."""
        return self.successes / self.trials if self.trials else None

    @property
    def interval(self) -> Interval | None:
        return wilson_interval(*self) if self.trials else None


def wilson_interval(successes: int, trials: int) -> Interval:
    """95% score interval of a rate (Wilson 1927), for at least one trial.

    It has a width when all or no trials succeeded, as the bootstrap has not. It takes trials as
    independent; steps of one text are not quite, so it is the least width.
    """
    rate = successes / trials
    center = (rate + Z * Z / (2 * trials)) / (1 + Z * Z / trials)
    spread = sqrt(rate * (1 - rate) / trials + Z * Z / (4 * trials**2)) * Z
    spread /= 1 + Z * Z / trials
    return [max(0.0, center - spread), min(1.0, center + spread)]


def interval_over_prompts(
    statistic: Callable[..., float],
    *samples: Sequence,
    trials: int,
    seed: int,
    draws: int = 1000,
    least: float = -inf,
) -> Interval | None:
    """95% interval of statistic(*samples) when the prompts are drawn again, with replacement.

    The percentile bootstrap is too narrow for few prompts. So the interval reaches at least as far
    as Student's t with the jackknife's standard error (Efron and Tibshirani 1993, chapter 11), and
    at least 3 / trials of the value: where all trials came out alike, another outcome may still
    have that probability (the rule of three).

    Args:
        statistic: gives a number from as many sequences as there are samples.
        samples: of equal length, one item a prompt, in the same order of prompts; several are drawn
            as pairs.
        trials: what the statistic counts, verify steps or tokens.
        least: the smallest value that the statistic can have.

    Returns:
        None for a single prompt, which says nothing of others.
    """
    count = len(samples[0])
    if count < 2:
        return None

    def of(prompts: Sequence[int]) -> float:
        return statistic(*([sample[i] for i in prompts] for sample in samples))

    value = of(range(count))
    generator = np.random.default_rng(seed)
    drawn = [of(generator.integers(count, size=count)) for _ in range(draws)]
    without = np.array([of([i for i in range(count) if i != left]) for left in range(count)])
    error = sqrt((count - 1) / count * float(((without - without.mean()) ** 2).sum()))
    reach = max(_student_t(count - 1) * error, abs(value) * 3 / trials)
    low, high = np.percentile(drawn, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return [max(least, min(float(low), value - reach)), max(float(high), value + reach)]


def _student_t(freedom: int) -> float:
    """The quantile of 97.5% (Abramowitz and Stegun 1972, 26.7.5), to 0.002."""
    if freedom <= len(STUDENT_T):
        return STUDENT_T[freedom - 1]
    return Z + (Z**3 + Z) / (4 * freedom) + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * freedom**2)
