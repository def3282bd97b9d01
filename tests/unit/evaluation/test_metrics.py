"""Each metric by its definition, on steps written out by hand."""

import pytest

from eagle.decoding.speculative import Generation
from eagle.evaluation.metrics import (
    acceptance_length,
    acceptance_rates,
    chain_acceptance_length,
    other_acceptance_lengths,
    step_cost,
    tokens_per_second,
)

# Prompt one: steps accept 2, 0, 5, which gives 11 tokens; 9 are kept. Prompt two: 1; 3 tokens.
GENERATIONS = [
    Generation(list(range(9)), 1.0, 2.0, 3, [2, 0, 5]),
    Generation(list(range(3)), 1.0, 1.0, 1, [1]),
]
VANILLA = [Generation(list(range(9)), 1.0, 4.0, 8), Generation(list(range(3)), 1.0, 1.0, 2)]


def test_tau_pools_accepted_plus_one_over_steps_before_cutting():
    assert acceptance_length(GENERATIONS) == (3 + 1 + 6 + 2) / 4


def test_the_other_definitions():
    assert other_acceptance_lengths(GENERATIONS) == pytest.approx(
        {
            "pooled_new_over_steps_and_prefill": 12 / 6,
            "pooled_new_over_steps": 12 / 4,
            "mean_new_over_steps_and_prefill": (9 / 4 + 3 / 2) / 2,
            "mean_new_over_steps": (9 / 3 + 3 / 1) / 2,
        }
    )


def test_rates_are_conditional_and_agree_with_tau():
    rates = acceptance_rates(GENERATIONS, 5)
    assert rates == [(3, 4), (2, 3), (1, 2), (1, 1), (1, 1)]
    assert chain_acceptance_length(rates, 5) == pytest.approx(acceptance_length(GENERATIONS))
    assert chain_acceptance_length(rates, 2) == 1 + 3 / 4 + 3 / 4 * 2 / 3
    rates = acceptance_rates([Generation([1, 2], 1.0, 1.0, 1, [0])], 3)
    assert [rate.value for rate in rates] == [0.0, None, None]
    assert chain_acceptance_length(rates, 3) == 1


def test_speed_with_and_without_prefill_and_the_cost_of_a_step():
    assert tokens_per_second(GENERATIONS) == 12 / 5
    assert tokens_per_second(GENERATIONS, prefill=False) == 10 / 3
    assert step_cost(GENERATIONS, VANILLA) == (3 / 4) / (5 / 10)
