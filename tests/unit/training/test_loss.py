"""The chunked closed form against the plain loss."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from eagle.draft.vocabulary import full_vocabulary, part_of_vocabulary
from eagle.training import loss
from eagle.training.loss import (
    block_sizes,
    eagle_loss,
    likeliest_tokens,
    reference_loss,
    teach,
)
from eagle.training.memory import Blocks, gpu_blocks


def case(rows: int, hidden: int, vocabulary: int, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    predicted, target, head = (
        torch.randn(n, hidden, generator=generator, dtype=dtype) for n in (rows, rows, vocabulary)
    )
    return predicted.requires_grad_(), target, head


def closed_form(predicted, target, head):
    vocabulary = full_vocabulary(head)
    return eagle_loss(predicted, target, teach(target, vocabulary), vocabulary)


@pytest.mark.parametrize("rows", [0, 1, 130, 300])
@pytest.mark.parametrize("blocks", [loss.CPU_BLOCKS, Blocks(100, 70)])
def test_values_and_gradients_are_the_references(rows, blocks, monkeypatch):
    monkeypatch.setattr(loss, "block_sizes", lambda _: blocks)
    predicted, target, head = case(rows, 16, 200)
    gradients = []
    for function in (closed_form, reference_loss):
        sums = function(predicted, target, head)
        (gradient,) = torch.autograd.grad(
            0.7 * sums.regression + 0.3 * sums.classification, predicted
        )
        gradients.append((sums, gradient))
    (ours, our_gradient), (plain, plain_gradient) = gradients
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(our_gradient, plain_gradient, rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
def test_a_gpu_computes_what_a_cpu_does():
    """In float32; products there must not be those of TF32, which are off by default."""
    found = []
    for device in ("cpu", "cuda"):
        predicted, target, head = (states.detach().to(device) for states in case(300, 16, 200))
        predicted.requires_grad_()
        sums = closed_form(predicted, target, head)
        (gradient,) = torch.autograd.grad(sums.classification, predicted)
        found.append([*(value.detach().cpu() for value in sums), gradient.cpu()])
    for exact, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-4, atol=1e-4)


def test_a_vocabulary_of_151936_is_one_as_any_other():
    predicted, target, head = case(3, 8, 151_936)
    sums, plain = closed_form(predicted, target, head), reference_loss(predicted, target, head)
    torch.testing.assert_close(sums.classification, plain.classification, rtol=1e-5, atol=1e-5)


def test_the_gradient_is_the_functions_own(monkeypatch):
    monkeypatch.setattr(loss, "block_sizes", lambda _: Blocks(2, 3))
    predicted, target, head = case(5, 4, 7, torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: closed_form(x, target, head).classification, (predicted,)
    )


def test_a_perfect_prediction_has_no_regression_and_no_gradient():
    _, target, head = case(20, 16, 50)
    predicted = target.clone().requires_grad_()
    sums = closed_form(predicted, target, head)
    (sums.regression + sums.classification).backward()
    assert sums.regression == 0
    assert sums.agreements == 20
    assert predicted.grad.abs().max() < 1e-5


def test_low_precision_heads_still_sum_in_float32():
    predicted, target, head = case(64, 16, 50)
    sums = closed_form(predicted, target, head.bfloat16())
    exact = closed_form(predicted, target, head.bfloat16().float())
    assert sums.classification.dtype == torch.float32
    torch.testing.assert_close(sums.classification, exact.classification, rtol=2e-2, atol=0)


def test_part_of_a_vocabulary_is_a_head_of_those_rows_alone():
    predicted, target, head = case(40, 8, 300)
    tokens = torch.tensor([7, 299, 30, 4, 55])
    vocabulary = part_of_vocabulary(head, tokens)
    teacher = teach(target, vocabulary)
    ours = eagle_loss(predicted, target, teacher, vocabulary)
    plain = reference_loss(predicted, target, head[tokens])
    torch.testing.assert_close(ours.classification, plain.classification)
    assert ours.agreements == plain.agreements
    assert torch.equal(teacher.likeliest, (target @ head[tokens].T).argmax(-1))


class LargestTensor(TorchDispatchMode):
    """Notes the size in bytes of the largest result of an operation."""

    bytes = 0

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        result = function(*arguments, **(named or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("rows, vocabulary", [(100, 4000), (1000, 4000), (1000, 900)])
def test_memory_is_a_blocks_however_many_rows_and_tokens(rows, vocabulary, monkeypatch):
    """Nothing of shape [M, V] exists: the largest tensor is one block's logits in float32."""
    blocks = Blocks(128, 1000)
    monkeypatch.setattr(loss, "block_sizes", lambda _: blocks)
    predicted, target, head = case(rows, 8, vocabulary)
    full = full_vocabulary(head.bfloat16())
    with LargestTensor() as ours:
        sums = eagle_loss(predicted, target, teach(target, full), full)
        sums.classification.backward()
    filled = rows + -rows % loss.ROUND
    assert ours.bytes == min(filled, blocks.rows) * min(vocabulary, blocks.columns) * 4
    with LargestTensor() as plain:
        reference_loss(predicted, target, head).classification.backward()
    assert plain.bytes == rows * vocabulary * 4


def test_the_likeliest_tokens_are_the_largest_logits():
    predicted, _, head = case(300, 8, 30)
    expected = (predicted @ head.T).argsort(-1, descending=True)[:, :5]
    first, five = likeliest_tokens(predicted, head, 5)
    assert torch.equal(first, expected[:, 0])
    assert torch.equal(five.sort(-1).values, expected.sort(-1).values)
    tied = torch.ones(30, 8)  # equal logits, as often in bfloat16: argmax chooses, as in `teach`
    assert torch.equal(likeliest_tokens(predicted, tied, 5)[0], (predicted @ tied.T).argmax(-1))


def test_the_blocks_are_the_devices():
    assert block_sizes(torch.device("cpu")) == (1024, 8192)
    # of an H200, an H100 and a card of 24 GB: 2.1, 1.1 and 0.3 GB
    sizes = [gpu_blocks(memory) for memory in (150_000_000_000, 85_000_000_000, 25_000_000_000)]
    assert sizes == [(8192, 32_768), (8192, 16_384), (8192, 4096)]
