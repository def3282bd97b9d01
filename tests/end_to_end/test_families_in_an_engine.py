"""The exported draft of ten families is the same draft in vLLM."""

import json
import subprocess
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig

import tools.serve_check as serve_check
from eagle.decoding.speculative import vanilla
from eagle.draft.checkpoint import load_draft
from eagle.draft.draft import Draft, attend_within_documents, draft_config
from eagle.evaluation.lossless import compare_texts
from eagle.export.layouts import export
from eagle.training.initialization import initialize_random
from eagle.verifier.verifier import Verifier
from tests.families import make_family
from tests.vllm_draft import predicted_features

LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
}  # fmt: skip
FAMILIES = {
    "llama 2": ("llama", {"num_key_value_heads": 4}),
    "llama 3.1": ("llama", {"rope_parameters": LLAMA3}),
    "mistral": ("mistral", {"sliding_window": None}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
    "qwen3_moe": ("qwen3_moe", {}),
    "phi3": ("phi3", {"sliding_window": None}),
    "gemma": ("gemma", {}),
    "smollm3": ("smollm3", {"num_hidden_layers": 4}),
    "olmo2": ("olmo2", {}),
}
# vLLM's attention on CPUs has no smaller heads than 32
SHAPE = {"hidden_size": 128, "intermediate_size": 160, "head_dim": 32, "moe_intermediate_size": 64}
PROMPTS = [[5, 9, 30, 41, 7, 8, 12, 77, 3, 60, 61, 5], [11, 12, 13], list(range(20, 60))]
STEPS = 300


@pytest.fixture(scope="module")
def served_models(engine_python) -> set[str]:
    """Names of the models that the engine has."""
    program = (
        "import json; from vllm import ModelRegistry; "
        "print('\\n' + json.dumps(sorted(ModelRegistry.get_supported_archs())))"
    )
    run = subprocess.run([engine_python, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(run.stdout.splitlines()[-1]))


@pytest.fixture
def verifier_and_exports(request, tmp_path) -> tuple[Path, Path]:
    """A tiny verifier of the family, and a draft in two layouts that knows its texts well."""
    family, values = FAMILIES[request.param]
    folder = make_family(family, tmp_path / "verifier", **SHAPE | values)
    verifier = Verifier.load(folder, torch.float32, torch.device("cpu"))
    draft = Draft(draft_config(None, verifier.config))
    initialize_random(draft, 0)
    learn_texts(draft, verifier)
    for layout in ("official", "vllm"):
        (tmp_path / layout).mkdir()
        export(draft, folder, layout, tmp_path / layout)
    return folder, tmp_path


def learn_texts(draft: Draft, verifier: Verifier) -> None:
    """Fit the draft to the features of the verifier's own greedy texts on PROMPTS."""
    texts = [
        torch.tensor(prompt + vanilla(verifier, prompt, serve_check.NEW_TOKENS).token_ids)
        for prompt in PROMPTS
    ]
    features = [verifier.features(text[None])[0] for text in texts]
    lengths = [len(text) - 1 for text in texts]
    attend = attend_within_documents(lengths, "sdpa")
    inputs = torch.cat([part[:-1] for part in features])
    targets = torch.cat([part[1:] for part in features])
    embeddings = verifier.embedding[torch.cat([text[1:] for text in texts])]
    positions = torch.cat([torch.arange(length) for length in lengths])
    scale = targets.std()
    optimizer = torch.optim.Adam(draft.parameters(), lr=2e-3)
    for _ in range(STEPS):
        predicted = draft(inputs, embeddings, positions, attend)
        loss = ((predicted - targets) / scale).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("verifier_and_exports", FAMILIES, indirect=True)
def test_acceptance_and_texts_are_ours_in_the_engine(
    verifier_and_exports, engine_python, served_models, monkeypatch
):
    verifier, exports = verifier_and_exports
    monkeypatch.setattr(serve_check, "VERIFIER", verifier)
    ours = serve_check.our_answers(exports / "official", PROMPTS, "float32")
    assert sum(answer["accepted"][0] for answer in ours) > 0  # otherwise any draft is the same
    if AutoConfig.from_pretrained(verifier).architectures[0] not in served_models:
        _check_predicted_features(verifier, exports)
        return
    job = (Path(engine_python), "vllm", exports / "vllm", PROMPTS, "float32")
    engine = serve_check.engine_answers(*job)["answers"]
    comparisons = compare_texts(
        lambda: Verifier.load(verifier, torch.float64, torch.device("cpu")),
        PROMPTS,
        [answer["token_ids"] for answer in engine],
        [answer["token_ids"] for answer in ours],
    )
    assert all(comparison.lossless() for comparison in comparisons)
    for theirs, own, comparison in zip(engine, ours, comparisons, strict=True):
        if comparison.identical:
            assert (theirs["drafts"], theirs["accepted"]) == (own["drafts"], own["accepted"])


def _check_predicted_features(verifier: Path, exports: Path) -> None:
    """The draft's step with rotary read from config.json as vLLM reads it."""
    loaded = Verifier.load(verifier, torch.float32, torch.device("cpu"))
    tokens = torch.tensor(PROMPTS[0])
    features = loaded.features(tokens[None])[0, :-1]
    embeddings = loaded.embedding[tokens[1:]]
    count = len(features)
    draft = load_draft(exports / "official")
    with torch.no_grad():
        expected = draft(
            features, embeddings, torch.arange(count), attend_within_documents([count], "sdpa")
        )
    predicted = predicted_features(exports / "vllm", features, embeddings, first_position=0)
    torch.testing.assert_close(predicted, expected, atol=1e-3, rtol=1e-3)
