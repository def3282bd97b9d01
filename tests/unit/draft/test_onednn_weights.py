"""Reordered weights give the same products as weights in rows."""

import pytest
import torch

from eagle.draft.onednn_weights import linear, reorder_linear_layers, reorder_weight
from eagle.verifier.verifier import Verifier


@pytest.mark.parametrize("rows", [1, 5, 26])
def test_a_product_with_a_reordered_weight_is_the_product(rows):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(40, 24, generator=generator).bfloat16()
    states = torch.randn(rows, 24, generator=generator).bfloat16()
    ours = linear(states, reorder_weight(weight)).float()
    # sums in another order, rounded once: at most one step of bfloat16 apart
    torch.testing.assert_close(ours, (states @ weight.T).float(), rtol=2**-7, atol=1e-2)
    exact = states.double() @ weight.double().T
    torch.testing.assert_close(ours, exact.float(), rtol=2**-7, atol=1e-2)


def test_other_weights_stay_as_they_are():
    weight = torch.randn(4, 3)
    assert reorder_weight(weight) is weight
    once = reorder_weight(weight.bfloat16())
    assert reorder_weight(once) is once
    model = torch.nn.Sequential(torch.nn.Linear(3, 4))
    layer = model[0]
    reorder_linear_layers(model)
    assert model[0] is layer


def test_a_reordered_verifier_has_the_same_features(tiny_verifier):
    original, reordered = (
        Verifier.load(tiny_verifier, torch.bfloat16, torch.device("cpu")) for _ in range(2)
    )
    reorder_linear_layers(reordered.model, keep=reordered.model.get_output_embeddings())
    assert not any(isinstance(module, torch.nn.Linear) for module in reordered.modules())
    ids = torch.randint(3, 250, (1, 40), generator=torch.Generator().manual_seed(0))
    features = reordered.features(ids)[0]
    expected = original.features(ids)[0]
    torch.testing.assert_close(features, expected, rtol=0.1, atol=0.1)
    assert torch.equal(reordered.head, original.head)
    logits = reordered.model.get_output_embeddings()(features)
    torch.testing.assert_close(logits, features @ original.head.T, rtol=0.02, atol=0.02)
