"""First weights: drawn from the seed, or solved for."""

import pytest
import torch

from eagle.draft.draft import Draft, attend_within_documents, draft_config
from eagle.errors import InputError
from eagle.training.initialization import (
    Pairs,
    initialize_from_last_layer,
    initialize_least_squares,
    initialize_random,
)


def test_random_weights_depend_on_the_seed_and_have_the_configs_deviation(draft):
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
    parts = zip(*(t.split(300) for t in (embeddings, features, targets)), strict=True)
    initialize_least_squares(draft, (Pairs(*part) for part in parts))
    with torch.no_grad():
        attend = attend_within_documents([1000], "sdpa")
        predicted = draft(features, embeddings, torch.arange(1000), attend)
    assert (predicted - targets).pow(2).sum() < 1e-3 * targets.pow(2).sum()
    assert draft.layers[0].self_attn.q_proj.weight.abs().max() > 0


@pytest.mark.parametrize("biases", [False, True])
def test_the_last_layer_is_taken_in_the_features_basis(draft, verifier, biases):
    """From features, the draft computes the same queries and MLP gates as the verifier's layer from
    the residual stream."""
    layer, final = verifier.model.model.layers[-1], verifier.model.model.norm
    generator = torch.Generator().manual_seed(0)
    for norm in (layer.input_layernorm, layer.post_attention_layernorm, final):
        norm.weight.data.uniform_(0.5, 2.0, generator=generator)
    if biases:  # as Qwen2 has them
        draft.config.qkv_bias = True
        draft = Draft(draft.config)
        for name in ("q_proj", "k_proj", "v_proj"):
            projection = getattr(layer.self_attn, name)
            projection.bias = torch.nn.Parameter(torch.randn(projection.out_features))
    initialize_random(draft, 0)
    initialize_from_last_layer(draft, verifier)
    stream = 5 * torch.randn(9, draft.config.hidden_size, generator=generator)
    features = final(stream)
    ours = draft.layers[0]
    with torch.no_grad():
        for name in ("q_proj", "k_proj", "v_proj"):
            torch.testing.assert_close(
                getattr(ours.self_attn, name)(features),
                getattr(layer.self_attn, name)(layer.input_layernorm(stream)),
                atol=1e-4, rtol=1e-4,
            )  # fmt: skip
        # a draft's MLP reads a residual stream of features: its norm takes out their scale
        ours_in = ours.post_attention_layernorm(features)
        scale = features.pow(2).mean(-1, keepdim=True).sqrt()
        torch.testing.assert_close(
            ours.mlp.gate_proj(ours_in) * scale,
            layer.mlp.gate_proj(layer.post_attention_layernorm(stream)),
            atol=1e-4, rtol=1e-4,
        )  # fmt: skip


def test_a_verifier_of_another_form_is_refused(verifier):
    config = draft_config(None, verifier.config)
    config.intermediate_size = 40
    with pytest.raises(InputError, match="these differ: mlp.down_proj.weight, mlp.gate_proj"):
        initialize_from_last_layer(Draft(config), verifier)
