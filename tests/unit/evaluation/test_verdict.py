"""A speed-up says no more than its interval, and nothing that cannot be."""

import pytest

from eagle.evaluation.verdict import judge_speed


@pytest.mark.parametrize(
    ("speedup", "interval", "tau", "break_even", "expected"),
    [
        (1.4, [1.3, 1.5], 1.7, 1.2, "faster"),
        (1.28, [0.46, 3.12], 1.4, 1.1, "no difference shown"),
        (1.05, [1.0, 1.1], 1.4, 1.3, "no difference shown"),  # the bound itself is no difference
        (0.8, [0.7, 0.9], 1.2, 1.5, "slower"),
        (0.97, [0.9, 1.02], 1.2, 1.25, "no difference shown"),
        (0.95, [0.9, 0.99], 1.0, 1.05, "slower"),
        (1.0, [0.9, 1.1], 1.0, 1.0, "no difference shown"),
        (1.28, [1.1, 1.4], 1.0, 1.0, "timing fault"),  # faster without an accepted token
        (2.0, [1.9, 2.1], 1.7, 1.1, "timing fault"),  # more than a step yields
        (1.4, [1.3, 1.5], 1.5, 0.98, "timing fault"),  # a step of less than a step
        (0.9, [0.8, 0.95], 1.0, 0.9, "timing fault"),
    ],
)
def test_the_verdict_follows_the_interval(speedup, interval, tau, break_even, expected):
    assert judge_speed(speedup, interval, tau, break_even) == expected
