"""Every decoder writes what the verifier alone writes; and what counts as a difference."""

import pytest
import torch

from eagle.decoding.speculative import Decoders, vanilla
from eagle.decoding.tree import DynamicTree, Tree
from eagle.draft.draft import Draft, draft_config
from eagle.evaluation.lossless import (
    LosslessProof,
    Rounding,
    TextComparison,
    compare_texts,
    measure_rounding,
    reference_texts,
)
from eagle.verifier.verifier import Verifier
from tests.tiny import make_verifier

PROMPTS, TOKENS = 200, 128
DECODERS = {
    "vanilla": None,
    "chain": Tree.chain(6),
    "static tree": Tree.named("mc_sim_7b_63"),
    "dynamic tree": DynamicTree(tokens=12, depth=5, top_k=3),
}


@pytest.fixture(scope="module")
def tiniest(tmp_path_factory):
    """A verifier of one layer that never stops and often repeats itself, and a draft for it.

    The draft returns its input feature, so that it proposes the verifier's last token again.
    """
    folder = make_verifier(
        tmp_path_factory.mktemp("tiniest") / "verifier",
        vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1,
    )  # fmt: skip
    verifier = Verifier.load(folder, torch.float64, torch.device("cpu"))
    verifier.head.data[verifier.stop_token_ids] = 0  # its logit is 0, never the largest
    draft = Draft(draft_config(None, verifier.config)).double()
    for parameter in draft.parameters():
        parameter.data.zero_()
    draft.fc.weight.data[:, 16:] = torch.eye(16)
    return verifier, draft


@pytest.fixture(scope="module")
def references(tiniest):
    """Prompts, and their texts by transformers."""
    generator = torch.Generator().manual_seed(0)
    prompts = [
        torch.randint(3, 64, (4 + i % 7,), generator=generator).tolist() for i in range(PROMPTS)
    ]
    return prompts, reference_texts(tiniest[0], prompts, TOKENS)


def accepted_of(decoders, prompt, reference, shape) -> int:
    """The number of accepted tokens in a generation, which must be the reference."""
    if shape is None:
        generation = decoders.vanilla(prompt, TOKENS)
    else:
        generation = decoders.speculate(prompt, TOKENS, shape)
    assert len(reference) == TOKENS
    assert generation.token_ids == reference
    return sum(generation.accepted)


@pytest.mark.parametrize("shape", DECODERS.values(), ids=DECODERS)
def test_every_decoder_writes_transformers_texts_in_float64(tiniest, references, shape):
    decoders = Decoders(*tiniest)
    accepted = [accepted_of(decoders, *text, shape) for text in zip(*references, strict=True)]
    assert shape is None or sum(accepted) > PROMPTS * TOKENS / 2


def test_a_difference_is_lossless_only_as_a_proven_tie(verifier):
    prompt = [5, 6, 7, 8]
    text = vanilla(verifier, prompt, 8).token_ids
    other = [*text[:3], (text[3] + 1) % 100, *text[4:]]
    same, changed, shorter = compare_texts(
        lambda: verifier, [prompt] * 3, [text, other, text[:5]], [text] * 3
    )
    assert same == TextComparison(identical=True)
    assert same.lossless()
    assert changed.first_difference == 3
    assert changed.logit_gap > 1e-3
    assert not changed.lossless()
    assert changed.lossless(tie=changed.logit_gap)
    assert not shorter.lossless()
    assert not shorter.lossless(tie=1e9)
    assert TextComparison(False, 3, 5e-4).lossless()


def test_rounding_is_measured_between_the_two_ways_of_verifying(verifier, tiny_verifier):
    prompt = [5, 6, 7, 8]
    text = vanilla(verifier, prompt, 40).token_ids
    assert measure_rounding(verifier, prompt, text).difference < 1e-10
    coarse = Verifier.load(tiny_verifier, torch.float32, torch.device("cpu"))
    rounding = measure_rounding(coarse, prompt, text)
    assert 0 < rounding.difference < rounding.ceiling == 1e-3


def test_a_broken_decoder_does_not_widen_what_counts_as_a_tie(verifier, tiny_verifier):
    """As a cache with stale keys does: the two ways to verify differ by far more than rounding."""
    served = Verifier.load(tiny_verifier, torch.bfloat16, torch.device("cpu"))
    rounding = measure_rounding(served, [5, 6, 7, 8], vanilla(served, [5, 6, 7, 8], 40).token_ids)
    assert rounding.difference < rounding.ceiling
    near = TextComparison(False, 3, rounding.difference)
    assert LosslessProof([], [near], rounding).lossless
    far = TextComparison(False, 3, 2 * rounding.ceiling)
    assert not LosslessProof([], [far], rounding).lossless
    broken = Rounding(10 * rounding.ceiling, rounding.ceiling)
    assert broken.difference > far.logit_gap
    assert not LosslessProof([], [far], broken).lossless
    assert not LosslessProof([], [], broken).lossless
