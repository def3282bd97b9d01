"""First weights: drawn from the seed, or solved for."""

import pytest
import torch
from transformers import AutoConfig

from eagle.draft import Draft, attend_within_documents, draft_config
from eagle.initialization import initialize_least_squares, initialize_random


@pytest.fixture
def draft(tiny_verifier):
    return Draft(draft_config(None, AutoConfig.from_pretrained(tiny_verifier)))


def test_random_weights_are_the_seeds_and_as_wide_as_the_config_says(draft):
    drawn = []
    for seed in (0, 0, 1):
        initialize_random(draft, seed)
        drawn.append(draft.fc.weight.clone())
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert abs(drawn[0].std().item() - draft.config.initializer_range) < 0.002


def batches(draft, count: int, scale: float = 1.0):
    """Two documents whose targets are linear in their inputs but for a part only context gives."""
    width = draft.config.hidden_size
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(2 * width, width, generator=generator)
    inputs = torch.randn(count, 2 * width, generator=generator)
    inputs[:, :width] /= 20  # embeddings are small beside features
    targets = inputs @ truth + scale * inputs[:, width:].cumsum(0) / 10
    counted = torch.arange(1, count // 2)
    return [
        (half[:, :width], half[:, width:], counted, target[counted], [count // 2])
        for half, target in zip(inputs.split(count // 2), targets.split(count // 2), strict=True)
    ]


def error(draft, given) -> float:
    missing = total = 0.0
    for embeddings, features, counted, targets, lengths in given:
        attend = attend_within_documents(lengths, "sdpa")
        with torch.no_grad():
            predicted = draft(features, embeddings, torch.arange(lengths[0]), attend)[counted]
        missing += float((predicted - targets).pow(2).sum())
        total += float(targets.pow(2).sum())
    return missing / total


def test_least_squares_begins_at_the_best_linear_prediction(draft):
    given = batches(draft, 1000, scale=0.0)
    initialize_random(draft, 0)
    assert error(draft, given) > 0.5
    initialize_least_squares(draft, lambda: given)
    assert error(draft, given) < 1e-3


def test_attention_and_mlp_are_solved_for_what_is_missing(draft):
    given = batches(draft, 1000)
    initialize_random(draft, 0)
    initialize_least_squares(draft, lambda: given)
    whole = error(draft, given)
    for linear in (draft.layers[0].mlp.down_proj, draft.layers[0].self_attn.o_proj):
        assert linear.weight.abs().max() > 0
        linear.weight.data.zero_()
        assert error(draft, given) > whole
        whole = error(draft, given)
