"""Drafts are compared prompt by prompt, and only where they were evaluated alike."""

import pandas as pd
import pytest

from eagle.errors import InputError
from eagle.evaluation.comparison import Evaluated, differences
from eagle.evaluation.metrics import acceptance_length, speedup
from tests.tiny import settings
from tests.unit.evaluation.test_metrics import GENERATIONS, VANILLA


def evaluated(
    name: str, accepted: list[int], seconds: float = 2.0, steps: int = 10, **values
) -> Evaluated:
    """Results on one prompt for each count of accepted tokens; vanilla takes 4 seconds."""
    count = len(accepted)
    table = pd.DataFrame(
        {
            "question_id": range(count), "turn": [1] * count, "prompt_tokens": [10] * count,
            "new_tokens": [20] * count, "verify_steps": [steps] * count, "accepted": accepted,
            "seconds": [seconds] * count, "vanilla_new_tokens": [20] * count,
            "vanilla_seconds": [4.0] * count,
            "chain_steps": [steps] * (count - 1) + [float("nan")],
            "chain_accepted": [*accepted[:-1], float("nan")],
        }
    )  # fmt: skip
    inputs = {"verifier": "a" * 64, "bench": "b" * 64}
    provenance = {"parameters": settings("evaluate", **values).model_dump(), "inputs": inputs}
    return Evaluated(name, table, provenance)


def test_what_is_easy_for_both_cancels():
    """One more accepted token on every prompt is a difference, however much the prompts differ."""
    easy_and_hard = [20, 400, 40, 350, 10, 280]
    one = evaluated("one", easy_and_hard, steps=100)
    two = evaluated("two", [count + 10 for count in easy_and_hard], steps=100)
    tau, chain, speed = differences([one, two])
    assert (tau.measure, tau.first, tau.second, tau.prompts) == ("tau", "one", "two", 6)
    assert tau.difference == pytest.approx(0.1)
    low, high = tau.interval
    assert 0.08 < low < 0.1 < high < 0.12
    assert chain.prompts == 5  # the chain was decoded for the first prompts alone
    assert speed.difference == 0
    assert speed.interval[0] < 0 < speed.interval[1]


def test_no_difference_is_shown_where_the_prompts_disagree():
    tau, *_ = differences([evaluated("one", [5, 9, 2, 7]), evaluated("two", [9, 4, 8, 3])])
    assert tau.interval[0] < 0 < tau.interval[1]


def test_one_prompt_has_a_difference_and_no_interval():
    tau, speed = differences([evaluated("one", [5]), evaluated("two", [6], seconds=1.0)])
    assert (tau.difference, tau.interval) == (pytest.approx(0.1), None)
    assert (speed.value_first, speed.value_second) == (2.0, 4.0)


def test_every_seed_is_compared_with_the_first():
    seeds = [evaluated(f"seed {n}", [5, 9 + n, 2]) for n in range(3)]
    pairs = {(row.first, row.second) for row in differences(seeds)}
    assert pairs == {("seed 0", "seed 1"), ("seed 0", "seed 2")}


def test_the_measures_are_those_of_an_evaluation():
    table = pd.DataFrame(
        {
            "question_id": n, "turn": 1, "prompt_tokens": 5,
            "new_tokens": len(drafted.token_ids), "verify_steps": len(drafted.accepted),
            "accepted": sum(drafted.accepted), "seconds": drafted.seconds,
            "vanilla_new_tokens": len(plain.token_ids), "vanilla_seconds": plain.seconds,
            "chain_steps": float("nan"), "chain_accepted": float("nan"),
        }
        for n, (drafted, plain) in enumerate(zip(GENERATIONS, VANILLA, strict=True))
    )  # fmt: skip
    draft = evaluated("", [1])._replace(per_prompt=table)
    tau, speed = differences([draft._replace(name="one"), draft._replace(name="two")])
    assert tau.value_first == acceptance_length(GENERATIONS)
    assert speed.value_first == speedup(GENERATIONS, VANILLA)


@pytest.mark.parametrize(
    ("values", "accepted", "expected"),
    [
        ({"maximum_new_tokens": 7}, [1, 2], "evaluate.maximum_new_tokens was .* for one and 7 for"),
        ({}, [1, 2, 3], "did not answer the same prompts .2 and 3 of them"),
    ],
)
def test_what_was_not_evaluated_alike_is_refused(values, accepted, expected):
    with pytest.raises(InputError, match=expected):
        differences([evaluated("one", [1, 2]), evaluated("two", accepted, **values)])


def test_drafts_of_other_verifiers_are_refused():
    other = evaluated("two", [1, 2])
    other.provenance["inputs"]["verifier"] = "c" * 64
    with pytest.raises(InputError, match="evaluated with another verifier each"):
        differences([evaluated("one", [1, 2]), other])
