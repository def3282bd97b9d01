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


def test_least_squares_begins_at_the_best_linear_prediction(draft):
    width = draft.config.hidden_size
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(2 * width, width, generator=generator)
    embeddings = torch.randn(1000, width, generator=generator) / 20  # small beside features
    features = torch.randn(1000, width, generator=generator)
    targets = torch.cat([embeddings, features], dim=-1) @ truth
    initialize_random(draft, 0)
    initialize_least_squares(
        draft, zip(*(t.split(300) for t in (embeddings, features, targets)), strict=True)
    )
    with torch.no_grad():
        attend = attend_within_documents([1000], "sdpa")
        predicted = draft(features, embeddings, torch.arange(1000), attend)
    assert (predicted - targets).pow(2).sum() < 1e-3 * targets.pow(2).sum()
    assert draft.layers[0].self_attn.q_proj.weight.abs().max() > 0
