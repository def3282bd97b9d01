"""The EAGLE-1 loss (paper, section 3.2): feature regression and soft classification.

Shapes: M counted positions, H hidden, V vocabulary, S tokens the softmax runs over.

With p the verifier's distribution, z = head @ predicted the draft's logits and Z = sum_v exp(z_v),

    classification = -sum_v p_v log softmax(z)_v = log Z - (sum_v p_v head_v) . predicted
    its gradient   = softmax(z) @ head - sum_v p_v head_v

so all that the loss needs of p is its mean head row, H numbers per position. They are computed once
with the features; every later pass then multiplies by the head twice, not three times.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from eagle.draft.vocabulary import Vocabulary
from eagle.training.memory import CPU_BLOCKS, Blocks, gpu_blocks

# The number of rows is filled up to a multiple of this: a CPU compiles its product kernels for each
# shape.
ROUND = 64
# Rows whose logits over the whole vocabulary exist at a time in `likeliest_tokens`.
SEARCHED_ROWS = 256


@functools.cache
def block_sizes(device: torch.device) -> Blocks:
    """The loss's blocks on a device.

    A GPU's depend on ALL of its memory, not on what is free: sums in other blocks round otherwise,
    and a run that goes on, or is started again, on the same machine must not.
    """
    if device.type != "cuda":
        return CPU_BLOCKS
    return gpu_blocks(torch.cuda.get_device_properties(device).total_memory)


class Teacher(NamedTuple):
    """What training needs of the verifier's next-token distribution p at M positions."""

    mean: Tensor
    """sum_v p_v head_v [M, H]."""
    likeliest: Tensor
    """The most likely token, as a row of the vocabulary's head, int64 [M]."""


class Sums(NamedTuple):
    """Sums over M counted positions; divided by M they are means."""

    regression: Tensor
    """SmoothL1 between predicted and true features, mean over H, summed over M."""
    classification: Tensor
    """Cross-entropy of softmax(head(predicted)) against softmax(head(true)), in nats."""
    agreements: Tensor
    """Positions where no logit of the draft is larger than that of the teacher's likeliest token.
    Equal logits, which are common in bfloat16, count."""


@torch.no_grad()
def teach(target: Tensor, vocabulary: Vocabulary) -> Teacher:
    """The teacher at features target [M, H], with the softmax over the vocabulary's tokens."""
    head = vocabulary.head
    mean = target.new_empty(target.shape, dtype=head.dtype)
    likeliest = torch.empty(len(target), dtype=torch.int64, device=target.device)
    at_once = block_sizes(head.device).rows
    for start in range(0, len(target), at_once):
        rows = slice(start, start + at_once)
        softmax = _Softmax(_filled(target[rows]), head)
        largest = softmax.largest
        place = torch.zeros_like(largest, dtype=torch.int64)
        for first, logits in softmax.blocks():
            value, at = logits.max(-1, keepdim=True)
            place = torch.where(value > largest, at + first, place)  # of equal ones the first
            largest = torch.maximum(value, largest)
            softmax.add(first, logits)
        count = len(target[rows])
        mean[rows], likeliest[rows] = softmax.mean()[:count].to(head.dtype), place[:count, 0]
    return Teacher(mean, likeliest)


@torch.no_grad()
def likeliest_tokens(predicted: Tensor, head: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The most likely token after features predicted [M, H], and the `count` most likely ones.

    Returns:
        int64 [M], chosen by argmax as the teacher's is (among equal logits, which are common in
        bfloat16, topk may choose another); and int64 [M, count] in any order.
    """
    first, several = [], []
    for rows in predicted.split(SEARCHED_ROWS):
        logits = (_filled(rows).to(head.dtype) @ head.T)[: len(rows)]  # [R, V]
        first.append(logits.argmax(-1))
        several.append(logits.topk(count).indices)
    return torch.cat(first), torch.cat(several)


def eagle_loss(predicted: Tensor, target: Tensor, teacher: Teacher, vocabulary: Vocabulary) -> Sums:
    """Both losses, computed in blocks of the logits.

    The head is frozen, so the gradient of the classification loss is known in the forward pass:
    only this [M, H] tensor is kept for the backward pass, and nothing of shape [M, S].

    Args:
        predicted: [M, H], the draft's features at counted positions.
        target: [M, H], the verifier's features there, without noise.
        teacher: `teach(target, vocabulary)`.
    """
    wide = torch.promote_types(predicted.dtype, torch.float32)
    regression = functional.smooth_l1_loss(predicted.to(wide), target.to(wide), reduction="none")
    classification, agreements = _SoftCrossEntropy.apply(predicted, *teacher, vocabulary.head)
    return Sums(regression.mean(-1).sum(), classification, agreements)


def reference_loss(predicted: Tensor, target: Tensor, head: Tensor) -> Sums:
    """The same written plainly, as the reference for tests of `eagle_loss`."""
    logits, teacher = predicted @ head.T, target @ head.T
    regression = functional.smooth_l1_loss(predicted, target, reduction="none").mean(-1).sum()
    classification = -(teacher.softmax(-1) * logits.log_softmax(-1)).sum()
    return Sums(regression, classification, (logits.argmax(-1) == teacher.argmax(-1)).sum())


class _SoftCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, predicted: Tensor, mean: Tensor, likeliest: Tensor, head: Tensor
    ) -> tuple[Tensor, Tensor]:
        wide = torch.promote_types(head.dtype, torch.float32)  # float64 stays float64
        loss = -(mean.to(wide) * predicted.to(wide)).sum()
        agreements = torch.zeros((), dtype=torch.int64, device=head.device)
        gradient = torch.empty_like(predicted) if ctx.needs_input_grad[0] else None
        at_once = block_sizes(head.device).rows
        for start in range(0, len(predicted), at_once):
            rows = slice(start, start + at_once)
            count = len(predicted[rows])
            softmax = _Softmax(_filled(predicted[rows]), head)
            place, taught = _filled(likeliest[rows, None]), softmax.largest
            for first, logits in softmax.blocks():
                at = place - first  # of the teacher's token in this block
                here = (at >= 0) & (at < logits.shape[1])
                own = logits.gather(1, at.clamp(0, logits.shape[1] - 1))
                taught = torch.where(here, own, taught)
                softmax.add(first, logits)
            loss += (softmax.total.log() + softmax.largest)[:count].sum()
            agreements += (taught == softmax.largest)[:count].sum()
            if gradient is not None:
                expected = softmax.mean()[:count]
                gradient[rows] = (expected - mean[rows].to(wide)).to(predicted.dtype)
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(agreements)
        return loss, agreements

    @staticmethod
    def backward(ctx, of_loss: Tensor, _of_agreements: Tensor):
        (gradient,) = ctx.saved_tensors
        return of_loss.to(gradient.dtype) * gradient, None, None, None


class _Softmax:
    """The softmax of R rows over head [S, H], block by block (Milakov and Gimelshein 2018, arXiv
    1805.02867): the sums so far are scaled down whenever a larger logit appears."""

    def __init__(self, states: Tensor, head: Tensor):
        """Args: states: [R, H]."""
        self.wide = torch.promote_types(head.dtype, torch.float32)
        self.states, self.head = states.to(head.dtype), head
        self.columns = block_sizes(head.device).columns
        self.largest = head.new_full((len(states), 1), float("-inf"), dtype=self.wide)
        self.total = head.new_zeros((len(states), 1), dtype=self.wide)
        """Sum of exp(logit - largest)."""
        self.weighted = head.new_zeros(states.shape, dtype=self.wide)
        """Sum of exp(logit - largest) * head row [R, H]."""

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """The number of each block's first head row, and the logits [R, columns], for `add`."""
        for first in range(0, len(self.head), self.columns):
            yield first, (self.states @ self.head[first : first + self.columns].T).to(self.wide)

    def add(self, first: int, logits: Tensor) -> None:
        """Add a block to the sums; its logits are overwritten."""
        largest = torch.maximum(self.largest, logits.amax(-1, keepdim=True))
        scale = (self.largest - largest).exp_()
        weights = logits.sub_(largest).exp_()
        self.largest = largest
        self.total.mul_(scale).add_(weights.sum(-1, keepdim=True))
        block = self.head[first : first + self.columns]
        self.weighted.mul_(scale).add_(weights.to(self.head.dtype) @ block)

    def mean(self) -> Tensor:
        """sum_v softmax_v head_v [R, H]."""
        return self.weighted / self.total


def _filled(rows: Tensor) -> Tensor:
    """[R, A] with rows of zeros appended, so that R is a multiple of ROUND."""
    return functional.pad(rows, (0, 0, 0, -len(rows) % ROUND))
