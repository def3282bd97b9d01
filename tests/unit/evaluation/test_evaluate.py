"""A whole evaluation of an untrained draft, with its temperature and its models in memory."""

import json
import weakref

import pytest
import torch

from eagle.draft.checkpoint import save_draft
from eagle.draft.draft import Draft, draft_config
from eagle.evaluation import evaluate as module
from eagle.evaluation.evaluate import evaluate
from eagle.evaluation.models import load_models
from eagle.tokens.tokenization import tokenize
from eagle.tokens.tokenizer import load_tokenizer
from eagle.tracking import Progress
from eagle.training.initialization import initialize_random
from eagle.verifier.verifier import Verifier
from tests.tiny import MARKED, make_messages, settings, write_json_lines

QUESTIONS = [
    {"question_id": 1, "category": "birds", "turns": ["how is the cat", "why"]},
    {"question_id": 2, "category": "hills", "turns": ["what is blue"]},
]


@pytest.fixture(scope="module")
def inputs(tiny_verifier, tmp_path_factory):
    """What `evaluate` takes besides the settings, and the file of questions."""
    folder = tmp_path_factory.mktemp("evaluate")
    verifier = Verifier.load(tiny_verifier, torch.float32, torch.device("cpu"))
    draft = Draft(draft_config(None, verifier.config))
    initialize_random(draft, 0)
    save_draft(draft, folder / "draft")
    tokenizer = load_tokenizer(tiny_verifier)
    with Progress("tokenize", 6, "conversations", 1e9) as progress:
        tokens, _ = tokenize(make_messages(6), tokenizer, MARKED, 200, progress)
    arguments = (tiny_verifier, folder / "draft", MARKED, tokenizer, tokens, tokens, 1e9)
    return arguments, write_json_lines(folder / "questions.jsonl", QUESTIONS)


def chain_settings(questions, **values):
    fixed = {
        "bench": str(questions), "questions": 2, "decoder": "chain", "draft_length": 2,
        "maximum_new_tokens": 8, "lossless_tokens": 8, "lossless_prompts": 2,
        "draft_vocabulary": 100,
    }  # fmt: skip
    return settings("evaluate", **fixed | values)


def test_metrics_details_and_table_are_of_the_same_generations(inputs):
    arguments, questions = inputs
    result = evaluate(chain_settings(questions), *arguments)
    table, details = result.per_prompt, result.details
    assert table[["question_id", "turn"]].values.tolist() == [[1, 1], [1, 2], [2, 1]]
    steps = table["verify_steps"]
    assert result.metrics["tau"] == pytest.approx(
        (table["tau"] * steps).sum() / steps.sum(), abs=1e-3
    )
    assert [details["by_turn"][turn]["prompts"] for turn in ("turn 1", "turn 2")] == [2, 1]
    assert details["steps"] == steps.sum()
    assert details["by_category"]["hills"]["tau_95"] is None  # a single prompt
    alpha, chain = details["alpha"], table["chain_steps"]
    assert details["alpha_steps"] == alpha[0]["of"] == chain.sum()
    assert alpha[1]["of"] == alpha[0]["accepted"]
    assert table["chain_accepted"].sum() == sum(rate["accepted"] for rate in alpha)
    assert chain.isna().tolist() == [False, False, True]  # lossless_prompts is 2
    assert details["engine_chain"]["length"] == 2
    assert details["engine_chain"]["from"] == "acceptance rates"  # the chain was stated
    agreement = details["top1_agreement"]
    assert result.metrics["top1_agreement"] == round(agreement["accepted"] / agreement["of"], 4)
    assert details["lossless"]["prompts"] == 2
    assert details["lossless_bfloat16"]["prompts"] == 3
    assert result.metrics["lossless"]
    assert json.loads(json.dumps(details))["decoder"]["name"] == "a chain of 2"


def test_the_engines_chain_is_the_forecasts(inputs):
    arguments, questions = inputs
    details = evaluate(chain_settings(questions, draft_length="auto"), *arguments).details
    row = next(row for row in details["forecasts"] if row["decoder"].startswith("chain of"))
    length = details["engine_chain"]["length"]
    assert row["decoder"] == f"chain of {length}"
    assert details["decoder"]["draft_length"] == length
    assert details["engine_chain"]["tau"] == row["tau"]


def test_above_temperature_0_only_the_float32_chains_are_compared(inputs):
    arguments, questions = inputs
    result = evaluate(chain_settings(questions, temperature=1.0), *arguments)
    again = evaluate(chain_settings(questions, temperature=1.0), *arguments)
    assert result.metrics["tau"] == again.metrics["tau"]  # drawn from the seed
    assert result.details["lossless_bfloat16"]["prompts"] == 0
    assert result.details["lossless"]["prompts"] == 2


def test_the_models_of_one_precision_are_freed_before_the_next_are_loaded(inputs, monkeypatch):
    arguments, questions = inputs
    loaded = []

    def load(*args, **kwargs):
        assert all(reference() is None for reference in loaded)
        models = load_models(*args, **kwargs)
        loaded.extend(weakref.ref(model) for model in models[:2])
        return models

    monkeypatch.setattr(module, "load_models", load)
    evaluate(chain_settings(questions), *arguments)
    assert len(loaded) == 4
