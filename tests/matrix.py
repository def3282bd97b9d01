"""A tiny verifier of any family, taken through the whole workflow: it works, or is refused."""

import contextlib
import json
from pathlib import Path
from typing import NamedTuple

import torch
import yaml
from torch import Tensor

from eagle.config import load_params
from eagle.decoding.kv_cache import Extent
from eagle.decoding.sessions import VerifierSession
from eagle.decoding.speculative import vanilla
from eagle.decoding.tree import Tree
from eagle.errors import InputError, one_line
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
from scripts.train import publish, train_config
from tests.families import make_family
from tests.tiny import MARKED, PARAMS, make_messages, write_json_lines

VALUES = {
    "verifier": {"source": "path:model", "revision": None},
    "regenerate": {
        "enabled": False, "dtype": "float32", "maximum_new_tokens": 8, "temperature": 0.0,
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


class Outcome(NamedTuple):
    """What became of a verifier. There is no fourth thing that `outcome` may be."""

    outcome: str
    """works, refused, or not built (by transformers itself, so that there is nothing to try)."""
    attn: str = ""
    initialization: str = ""
    reason: str = ""
    """Why it was refused, or the exception with which building it ended."""


def take_through(name: str, folder: Path) -> Outcome:
    """Make a verifier of a family or variant in `folder`, and run every stage with it.

    Raises:
        Exception: it was admitted, and something failed or is wrong afterwards.
    """
    try:
        make_family(name, folder / "model", MARKED)
    except Exception as error:  # whatever a config's or a model's class raises
        return Outcome("not built", reason=f"{type(error).__name__}: {one_line(error)}")
    with contextlib.chdir(folder):
        _write_project()
        try:
            download_model.main()
        except InputError as refusal:
            source, _, reason = str(refusal).partition(": config.json: model_type ")
            assert source == "model", refusal
            assert "\n" not in reason
            return Outcome("refused", reason=reason.partition(": ")[2])
        initialization = _run_stages()
        verifier = _load(torch.float64)
        _check_features(verifier)
        _check_session(verifier, _texts()[0][:20])
        _check_texts()
        _regenerate()
    return Outcome("works", verifier.attn, initialization)


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


def _run_stages() -> str:
    """From the replies as they are to the evaluation. Returns the initialization that was taken."""
    regenerate_replies.main()
    validate_template.main()
    tokenize_dataset.main()
    config = train_config(load_params())
    train(config)  # what torchrun starts, without the seconds that starting it takes
    publish(config, processes=1)
    export_checkpoint.main()
    evaluate.main()
    assert _json("results/evaluate/metrics.json")["lossless"], _json(
        "results/evaluate/details.json"
    )
    return _json("results/train/provenance.json")["parameters"]["initialization"]


def _regenerate() -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["regenerate"]["enabled"] = True
    Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    regenerate_replies.main()


def _json(path: str) -> dict:
    return json.loads(Path(path).read_text())


def _tokens() -> TokenSet:
    return TokenSet.load(Path("resources/tokens/train.safetensors"))


def _texts() -> list[list[int]]:
    tokens = _tokens()
    return [tokens.token_ids[tokens.span(i)].tolist() for i in range(len(tokens))]


def _load(dtype: torch.dtype) -> Verifier:
    return Verifier.load(Path("resources/verifier"), dtype, torch.device("cpu"))


def _close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def _check_features(verifier: Verifier) -> None:
    """The head makes the logits of the features, and padding changes nothing."""
    texts = [torch.tensor([text]) for text in _texts()]
    alone = [verifier.features(text) for text in texts]
    _close(alone[0] @ verifier.head.T, verifier.model(texts[0]).logits)
    together = compute_features(_tokens(), verifier, list(range(len(texts))))
    _close(together, torch.cat([features[0] for features in alone]))


def _check_session(verifier: Verifier, prompt: list[int]) -> None:
    """With a cache, every token has the features of its path without one."""

    def expected(*continuation: int) -> Tensor:
        return verifier.features(torch.tensor([[*read, *continuation]]))[0, -1]

    read = list(prompt)
    session = VerifierSession(verifier, 200)
    _close(session.begin(torch.tensor(prompt))[-1], expected())

    def step(tokens: list[int], tree: Tree, fixed: int | None) -> Tensor:
        """The features of tokens behind what was read."""
        extent = Extent(len(read), fixed)
        return session.step(torch.tensor(tokens), tree.tensors(torch.device("cpu")), extent)

    for first, fixed in ((40, None), (90, 200)):  # the second tree follows what was kept
        rows = [first + 3 * row for row in range(len(TREE))]
        features = step(rows, TREE, fixed)
        for row in range(len(TREE)):
            _close(features[row], expected(*(rows[at] for at in TREE.path(row))))
        path = TREE.path(len(TREE) - 1)
        session.keep(torch.tensor(path), len(path))
        read += [rows[at] for at in path]
        chain = [first + 1, first + 2, first + 5]
        _close(step(chain, Tree.chain(2), fixed)[-1], expected(*chain))
        session.keep(None, 3)
        read += chain
        _close(step([first + 7], Tree.chain(0), fixed)[-1], expected(first + 7))
        session.keep(None, 1)
        read.append(first + 7)


def _check_texts() -> None:
    """Vanilla decoding and regeneration write what transformers' `generate` writes."""
    verifier, count = _load(torch.float32), 16
    prompts = [text[:length] for text, length in zip(_texts(), (20, 9, 14), strict=False)]
    references = [reference_texts(verifier, [prompt], count)[0] for prompt in prompts]
    decoded = [vanilla(verifier, prompt, count).token_ids for prompt in prompts]
    tokenizer, settings = load_tokenizer(Path("resources/verifier")), load_params().regenerate
    requests = [Prompt(row, 1, prompt, count, 0) for row, prompt in enumerate(prompts)]
    # of different lengths, so padded, in one batch
    regenerated = TransformersBackend(verifier, tokenizer, settings)._generate(requests)
    for texts in (decoded, regenerated):
        comparisons = compare_texts(lambda: _load(torch.float64), prompts, texts, references)
        assert all(comparison.lossless() for comparison in comparisons), comparisons
