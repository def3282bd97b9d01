"""Verifiers of the most used families through every stage; `test_every_family` has all of them."""

import pytest

from tests.matrix import Outcome, take_through

WITH = {
    "llama": "last_layer",
    "llama, rope of Llama 3.1": "last_layer",
    "mistral": "last_layer",  # with a window
    "qwen2": "least_squares",  # its biases are not in the draft
    "qwen3": "least_squares",
    "qwen3_moe": "least_squares",
    "phi3": "least_squares",
    "gemma": "least_squares",
    "smollm3": "last_layer",
    "olmo2": "least_squares",
}


@pytest.mark.parametrize("name", WITH)
def test_works(name, tmp_path):
    assert take_through(name, tmp_path) == Outcome("works", "sdpa", WITH[name])


def test_what_is_refused_is_refused_at_once(tmp_path):
    outcome = take_through("gemma2", tmp_path)
    assert outcome.outcome == "refused"
    assert "final_logit_softcapping = 30" in outcome.reason
