"""A verifier that overflows in half precision gives no figure, no feature and no reply."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from eagle.decoding.speculative import speculate, vanilla
from eagle.decoding.tree import Tree
from eagle.draft.draft import Draft, draft_config
from eagle.draft.vocabulary import full_vocabulary
from eagle.errors import InputError
from eagle.evaluation.agreement import top1_agreement
from eagle.evaluation.lossless import measure_rounding
from eagle.evaluation.models import Models
from eagle.replies.replies import Prompt, TransformersBackend
from eagle.tokens.token_set import TokenSet
from eagle.tokens.tokenizer import load_tokenizer
from eagle.tracking import Progress
from eagle.training.features import compute_features
from eagle.training.initialization import initialize_random
from eagle.verifier.verifier import Verifier
from tests.tiny import make_verifier, settings

PROMPT = [5, 6, 7, 8]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An MLP whose outputs are beyond float16's 65,504, and nothing for float32."""
    folder = make_verifier(tmp_path_factory.mktemp("overflow") / "verifier")
    weights = load_file(folder / "model.safetensors")
    for name in weights:
        if name.endswith("down_proj.weight"):
            weights[name] *= 1e6
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def overflowing(folder):
    return Verifier.load(folder, torch.float16, torch.device("cpu"))


@pytest.fixture
def draft(overflowing):
    draft = Draft(draft_config(None, overflowing.config))
    initialize_random(draft, 0)
    return draft.cast(torch.float16)


@pytest.fixture
def tokens():
    return TokenSet(
        torch.arange(5, 17, dtype=torch.int32),
        torch.tensor([0, 0, 1, 1, 1, 1] * 2, dtype=torch.uint8),
        torch.tensor([0, 6, 12]),
    )


def test_features_are_refused_with_document_and_precision(overflowing, folder, tokens):
    with pytest.raises(InputError, match=r"document 1 .*not finite in float16.*verifier_model_dty"):
        compute_features(tokens, overflowing, [1])
    exact = Verifier.load(folder, torch.float32, torch.device("cpu"))
    assert compute_features(tokens, exact, [0, 1]).isfinite().all()


def test_no_decoder_gives_a_text(overflowing, draft):
    with pytest.raises(InputError, match="logits are not finite in float16.*evaluate.dtype"):
        vanilla(overflowing, PROMPT, 8)
    with pytest.raises(InputError, match="logits are not finite in float16.*evaluate.dtype"):
        speculate(overflowing, draft, PROMPT, 8, Tree.chain(2))
    with pytest.raises(InputError, match="logits are not finite in float16"):
        measure_rounding(overflowing, PROMPT, [9, 10, 11])


def test_nan_does_not_agree_with_nan(folder, tokens, draft):
    exact = Verifier.load(folder, torch.float32, torch.device("cpu"))
    draft = draft.cast(torch.float32)
    draft.fc.weight.data.fill_(float("nan"))
    models = Models(exact, draft, full_vocabulary(exact.head))
    with pytest.raises(InputError, match="predictions are not finite"):
        top1_agreement(tokens, models, Progress("test", 2, "documents"))


def test_no_reply_is_written(overflowing, folder):
    values = settings("regenerate", dtype="float16", temperature=0.0)
    backend = TransformersBackend(overflowing, load_tokenizer(folder), values)
    prompt = Prompt(3, 1, PROMPT, 8, 0)
    with pytest.raises(InputError, match="conversation 3 .*turn 1: .*regenerate.dtype"):
        list(backend.replies([prompt], set()))
