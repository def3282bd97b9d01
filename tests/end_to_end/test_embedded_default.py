"""What `make repro` left on the real embedded verifier; `make test` runs it first."""

import json

import pytest
import torch

from eagle.checkpoint import load_draft
from eagle.decoding import chain, vanilla
from eagle.lossless import compare
from eagle.verifier import Verifier, load_tokenizer
from tests.conftest import ROOT

VERIFIER = ROOT / "resources/verifier"


@pytest.fixture(scope="module")
def verifier():
    return Verifier.load(VERIFIER, torch.float32, torch.device("cpu"))


def exact() -> Verifier:
    return Verifier.load(VERIFIER, torch.float64, torch.device("cpu"))


def prompt(text: str) -> list[int]:
    message = [{"role": "user", "content": text}]
    return load_tokenizer(VERIFIER).apply_chat_template(
        message, add_generation_prompt=True, return_dict=True
    )["input_ids"]


def test_the_verifier_is_a_chat_model(verifier):
    generation = vanilla(verifier, prompt("What is the capital of France?"), 16)
    text = load_tokenizer(VERIFIER).decode(generation.token_ids, skip_special_tokens=True)
    assert text == "The capital of France is Paris."


def test_the_draft_is_as_good_as_promised():
    metrics = json.loads((ROOT / "results/evaluate/metrics.json").read_text())
    assert metrics["top1_agreement"] >= 0.35
    assert metrics["tau"] >= 1.3
    assert metrics["lossless"]
    trained = json.loads((ROOT / "results/train/metrics.json").read_text())
    assert trained["peak_memory_mb"] <= 4000


def test_the_exported_draft_decodes_without_loss(verifier):
    draft = load_draft(ROOT / "models/export/official")
    asked = prompt("Explain why leaves fall in autumn.")
    fast, plain = chain(verifier, draft, asked, 24, 3), vanilla(verifier, asked, 24)
    (comparison,) = compare(exact, [asked], [fast.token_ids], [plain.token_ids])
    assert comparison.lossless()
    assert sum(fast.accepted) > 0


def test_the_mask_covers_what_the_assistant_says():
    report = json.loads((ROOT / "results/template/report.json").read_text())
    assert report["renders_like_the_verifiers_own"]
    assert report["conversations"] == 200
    assert 0.5 < report["mask_share"] < 0.95


def test_the_sample_is_large_enough():
    manifest = json.loads((ROOT / "resources/tokens/manifest.json").read_text())
    assert manifest["train"]["documents"] + manifest["validation"]["documents"] > 100
    rows = [
        row
        for path in sorted((ROOT / "resources/conversations").glob("*.json"))
        for row in json.loads(path.read_text())
    ]
    assert len(rows) > 800
    shipped = (ROOT / "resources/conversations").glob("*.json")
    assert all(path.stat().st_size < 1e6 for path in shipped)
