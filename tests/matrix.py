"""A tiny verifier of any family, taken through the whole workflow: it works, or is refused."""

import contextlib
import json
import shutil
from pathlib import Path

import torch
import yaml
from torch import Tensor

from eagle.config import load_params
from eagle.decoding.sessions import VerifierSession
from eagle.decoding.speculative import vanilla
from eagle.decoding.tree import Tree
from eagle.errors import InputError
from eagle.evaluation.lossless import compare_texts, reference_texts
from eagle.replies.replies import Prompt, TransformersBackend
from eagle.tokens.token_set import TokenSet
from eagle.tokens.tokenizer import load_tokenizer
from eagle.train import train
from eagle.training.features import compute_features
from eagle.verifier.verifier import Verifier
from scripts import (
    download_model,
    evaluate,
    export_checkpoint,
    regenerate_replies,
    tokenize_dataset,
    validate_template,
)
from scripts.train import train_config
from tests.families import make_family
from tests.tiny import MARKED, PARAMS, make_messages, write_json_lines

VALUES = {
    "verifier": {"source": "path:model", "revision": None},
    "regenerate": {
        "enabled": True, "dtype": "float32", "maximum_new_tokens": 8, "temperature": 0.0,
        "batch_size": 4,
    },
    "template": {"file": None, "sample": 4},
    "tokens": {"maximum_model_length": 128},
    "train": {
        "epochs": 1, "global_batch_size": 2, "warmup_updates": 1, "validation_updates": 2,
        "verifier_model_dtype": "float32", "verifier_model_lm_head_dtype": "float32",
        "eagle_dtype": "float32", "mixed_precision": "none", "initialization": "auto",
        "softmax_vocabulary": None,
    },
    "evaluate": {
        "bench": "questions.jsonl", "questions": 2, "maximum_new_tokens": 12, "dtype": "float32",
        "lossless_prompts": 2, "lossless_tokens": 24, "draft_vocabulary": None,
        "static_tree": [[0], [1], [0, 0]],
    },
    "machine": {"data_processes": 1},
}  # fmt: skip
# the two longest paths have three drafted tokens, and rows differ from their order in depth
TREE = Tree.from_paths([(0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0), (1, 0, 0)])


def take_through(name: str, folder: Path) -> dict:
    """Make a verifier of a family or variant in `folder`, and run every stage with it.

    Returns:
        works: whether it was admitted; attn; initialization; reason: the refusal.

    Raises:
        AssertionError or anything else: an outcome that must not be.
    """
    make_family(name, folder / "model", MARKED)
    with contextlib.chdir(folder):
        _write_project()
        try:
            download_model.main()
        except InputError as refusal:
            return {"works": False, "reason": _checked_refusal(str(refusal))}
        return {"works": True} | _run_stages() | _check_decoding()


def _write_project() -> None:
    params = yaml.safe_load(PARAMS.read_text())
    for section, values in VALUES.items():
        params[section].update(values)
    Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    Path("resources/sharegpt").mkdir(parents=True)
    write_json_lines(Path("resources/sharegpt/train.jsonl"), make_messages(6))
    write_json_lines(Path("resources/sharegpt/validation.jsonl"), make_messages(2, seed=1))
    questions = [
        {"question_id": 1, "category": "birds", "turns": ["why fly over blue hills", "how"]},
        {"question_id": 2, "category": "cats", "turns": ["what is a mat"]},
    ]
    write_json_lines(Path("questions.jsonl"), questions)


def _checked_refusal(message: str) -> str:
    """The reason, without what names the source."""
    assert "\n" not in message
    return message.removeprefix("model: ").removeprefix("config.json: ")


def _run_stages() -> dict:
    regenerate_replies.main()
    validate_template.main()
    tokenize_dataset.main()
    params = load_params()
    run = train(train_config(params).model_copy(update={"output": None}))
    shutil.copytree(run, "results/train")
    for draft in ("best", "last"):
        shutil.copytree(run / draft, f"models/draft/{draft}")
    export_checkpoint.main()
    evaluate.main()
    metrics = json.loads(Path("results/evaluate/metrics.json").read_text())
    assert metrics["lossless"], Path("results/evaluate/details.json").read_text()
    return {"initialization": params.train.initialization}


def _load(dtype: torch.dtype) -> Verifier:
    return Verifier.load(Path("resources/verifier"), dtype, torch.device("cpu"))


def _check_decoding() -> dict:
    verifier = _load(torch.float64)
    tokens = TokenSet.load(Path("resources/tokens/train.safetensors"))
    text = tokens.token_ids[tokens.span(0)].tolist()
    _check_features(verifier, tokens)
    _check_session(verifier, text[:20])
    _check_texts([text[:20], text[:9], text[3:17]])
    return {"attn": verifier.attn}


def _close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def _check_features(verifier: Verifier, tokens: TokenSet) -> None:
    """The head makes the logits of the features, and padding changes nothing."""
    rows = [tokens.token_ids[tokens.span(i)].long()[None] for i in range(4)]
    alone = [verifier.features(row) for row in rows]
    _close(alone[0] @ verifier.head.T, verifier.model(rows[0]).logits)
    _close(compute_features(tokens, verifier, [0, 1, 2, 3]), torch.cat([f[0] for f in alone]))


def _check_session(verifier: Verifier, prompt: list[int]) -> None:
    """With a cache, every token has the features of its path without one."""

    def expected(*continuation: int) -> Tensor:
        return verifier.features(torch.tensor([[*read, *continuation]]))[0, -1]

    read = list(prompt)
    session = VerifierSession(verifier, 200)
    _close(session.step(prompt)[-1], expected())
    for first in (40, 90):  # the second tree follows what was kept of the first
        rows = [first + 3 * row for row in range(len(TREE))]
        features = session.step(rows, TREE)
        for row in range(len(TREE)):
            _close(features[row], expected(*(rows[at] for at in TREE.path(row))))
        path = TREE.path(len(TREE) - 1)
        session.keep(path, len(TREE))
        read += [rows[at] for at in path]
        chain = [first + 1, first + 2, first + 5]
        _close(session.step(chain)[-1], expected(*chain))
        read += chain
        _close(session.step([first + 7])[-1], expected(first + 7))
        read.append(first + 7)


def _check_texts(prompts: list[list[int]]) -> None:
    """Vanilla decoding and regeneration write what transformers' `generate` writes."""
    verifier, tokens = _load(torch.float32), 16
    references = [reference_texts(verifier, [prompt], tokens)[0] for prompt in prompts]
    decoded = [vanilla(verifier, prompt, tokens).token_ids for prompt in prompts]
    settings = load_params().regenerate
    backend = TransformersBackend(verifier, load_tokenizer(Path("resources/verifier")), settings)
    requests = [Prompt(row, 1, prompt, tokens, 0) for row, prompt in enumerate(prompts)]
    regenerated = backend._generate(requests)
    for texts in (decoded, regenerated):
        comparisons = compare_texts(lambda: _load(torch.float64), prompts, texts, references)
        assert all(comparison.lossless() for comparison in comparisons), comparisons
