"""The chunked closed form against the plain loss."""

import pytest
import torch

from eagle import loss
from eagle.loss import eagle_loss, reference_loss


def case(rows: int, hidden: int, vocabulary: int, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    predicted, target, head = (
        torch.randn(n, hidden, generator=generator, dtype=dtype) for n in (rows, rows, vocabulary)
    )
    return predicted.requires_grad_(), target, head


@pytest.mark.parametrize("rows", [0, 1, 130, 300])
def test_values_and_gradients_are_the_references(rows):
    predicted, target, head = case(rows, 16, 200)
    gradients = []
    for function in (eagle_loss, reference_loss):
        sums = function(predicted, target, head)
        (gradient,) = torch.autograd.grad(
            0.7 * sums.regression + 0.3 * sums.classification, predicted
        )
        gradients.append((sums, gradient))
    (ours, our_gradient), (plain, plain_gradient) = gradients
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(our_gradient, plain_gradient, rtol=1e-5, atol=1e-5)


def test_the_gradient_is_the_functions_own(monkeypatch):
    monkeypatch.setattr(loss, "CHUNK", 2)
    predicted, target, head = case(5, 4, 7, torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: eagle_loss(x, target, head).classification, (predicted,)
    )


def test_a_perfect_prediction_has_no_regression_and_no_gradient():
    _, target, head = case(20, 16, 50)
    predicted = target.clone().requires_grad_()
    sums = eagle_loss(predicted, target, head)
    (sums.regression + sums.classification).backward()
    assert sums.regression == 0
    assert sums.agreements == 20
    assert predicted.grad.abs().max() < 1e-5


def test_low_precision_heads_still_sum_in_float32():
    predicted, target, head = case(64, 16, 50)
    sums = eagle_loss(predicted, target, head.bfloat16())
    exact = eagle_loss(predicted, target, head.bfloat16().float())
    assert sums.classification.dtype == torch.float32
    torch.testing.assert_close(sums.classification, exact.classification, rtol=2e-2, atol=0)
