"""Packed weights give the very products of plain ones."""

import pytest
import torch

from eagle.draft.onednn_weights import pack, packed, product
from eagle.verifier.verifier import Verifier


@pytest.mark.parametrize("rows", [1, 5, 26])
def test_a_packed_product_is_the_product(rows):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(40, 24, generator=generator).bfloat16()
    states = torch.randn(rows, 24, generator=generator).bfloat16()
    ours = product(states, packed(weight)).float()
    # sums in another order, rounded once: at most one step of bfloat16 apart
    torch.testing.assert_close(ours, (states @ weight.T).float(), rtol=2**-7, atol=1e-2)
    exact = states.double() @ weight.double().T
    torch.testing.assert_close(ours, exact.float(), rtol=2**-7, atol=1e-2)


def test_what_packing_does_not_serve_stays_as_it_is():
    weight = torch.randn(4, 3)
    assert packed(weight) is weight
    once = packed(weight.bfloat16())
    assert packed(once) is once


def test_a_packed_verifier_has_the_features_of_the_plain_one(tiny_verifier):
    plain, fast = (
        Verifier.load(tiny_verifier, torch.bfloat16, torch.device("cpu")) for _ in range(2)
    )
    pack(fast.model, keep=fast.model.get_output_embeddings())
    assert not any(isinstance(module, torch.nn.Linear) for module in fast.modules())
    ids = torch.randint(3, 250, (1, 40), generator=torch.Generator().manual_seed(0))
    features = fast.features(ids)[0]
    expected = plain.features(ids)[0]
    torch.testing.assert_close(features, expected, rtol=0.1, atol=0.1)
    assert torch.equal(fast.head, plain.head)
    logits = fast.model.get_output_embeddings()(features)
    torch.testing.assert_close(logits, features @ plain.head.T, rtol=0.02, atol=0.02)
