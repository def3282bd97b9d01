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
    inputs = torch.randn(500, 2 * width, generator=generator)
    inputs[:, :width] /= 20  # embeddings are small beside features
    targets = inputs @ truth
    initialize_random(draft, 0)
    halves = zip(inputs.split(250), targets.split(250), strict=True)
    initialize_least_squares(draft, halves)
    with torch.no_grad():
        predicted = draft(
            inputs[:, width:],
            inputs[:, :width],
            torch.arange(500),
            attend_within_documents([500], "sdpa"),
        )
    error = (predicted - targets).pow(2).mean() / targets.pow(2).mean()
    assert error < 1e-3


def test_the_layer_can_learn_from_its_first_step(draft):
    """Zero output projections must not leave the layer without a gradient."""
    initialize_random(draft, 0)
    width = draft.config.hidden_size
    inputs, targets = torch.randn(50, 2 * width), torch.randn(50, width)
    initialize_least_squares(draft, [(inputs, targets)])
    attend = attend_within_documents([50], "sdpa")
    out = draft(inputs[:, width:], inputs[:, :width], torch.arange(50), attend)
    (out - targets).pow(2).mean().backward()
    assert draft.layers[0].self_attn.o_proj.weight.grad.abs().max() > 0
    assert draft.layers[0].mlp.down_proj.weight.grad.abs().max() > 0
