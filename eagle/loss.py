"""The EAGLE-1 loss (paper, section 3.2): feature regression and soft classification.

Shapes: M counted positions, H hidden, V vocabulary.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

# Rows whose logits exist at once: 3 float32 tensors [CHUNK, V] are the loss's whole memory,
# 75 MB at V = 49,152, and small enough to stay in a CPU's cache.
CHUNK = 128


class Sums(NamedTuple):
    """Sums over counted positions; divide by their number."""

    regression: Tensor
    """SmoothL1 between predicted and true features, mean over H, summed over M."""
    classification: Tensor
    """Cross-entropy of softmax(head(predicted)) against softmax(head(true)), in nats."""
    agreements: Tensor
    """Positions where both heads' most likely tokens are the same."""


def eagle_loss(predicted: Tensor, target: Tensor, head: Tensor) -> Sums:
    """Both losses in chunks, without keeping logits.

    The head is frozen, so the gradient of the classification loss with respect to the predicted
    features is known in the forward pass: (softmax(z_draft) - softmax(z_teacher)) @ head. Only
    that [M, H] tensor is kept for the backward pass, nothing of shape [M, V].

    Args:
        predicted: [M, H], the draft's features at counted positions.
        target: [M, H], the verifier's features there, without noise.
        head: [V, H], the verifier's. The products run in its dtype, the rest in float32.
    """
    wide = torch.promote_types(predicted.dtype, torch.float32)
    regression = functional.smooth_l1_loss(predicted.to(wide), target.to(wide), reduction="none")
    classification, agreements = _SoftCrossEntropy.apply(predicted, target, head)
    return Sums(regression.mean(-1).sum(), classification, agreements)


def reference_loss(predicted: Tensor, target: Tensor, head: Tensor) -> Sums:
    """The same, written plainly: what tests hold `eagle_loss` against."""
    logits, teacher = predicted @ head.T, target @ head.T
    regression = functional.smooth_l1_loss(predicted, target, reduction="none").mean(-1).sum()
    classification = -(teacher.softmax(-1) * logits.log_softmax(-1)).sum()
    return Sums(regression, classification, (logits.argmax(-1) == teacher.argmax(-1)).sum())


class _SoftCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, predicted: Tensor, target: Tensor, head: Tensor) -> tuple[Tensor, Tensor]:
        wide = torch.promote_types(head.dtype, torch.float32)  # float64 stays float64
        loss = torch.zeros((), dtype=wide, device=head.device)
        agreements = torch.zeros((), dtype=torch.int64, device=head.device)
        gradient = torch.empty_like(predicted)
        for start in range(0, len(predicted), CHUNK):
            rows = slice(start, start + CHUNK)
            logits = (predicted[rows].to(head.dtype) @ head.T).to(wide)  # [C, V]
            teacher = (target[rows].to(head.dtype) @ head.T).to(wide)  # [C, V]
            agreements += (logits.argmax(-1) == teacher.argmax(-1)).sum()
            teacher = teacher.softmax(-1)
            normalizer = logits.logsumexp(-1, keepdim=True)
            # -sum p_teacher log p_draft = normalizer - sum p_teacher z_draft
            loss += normalizer.sum() - torch.einsum("cv,cv->", teacher, logits)
            difference = logits.sub_(normalizer).exp_().sub_(teacher)
            gradient[rows] = (difference.to(head.dtype) @ head).to(predicted.dtype)
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(agreements)
        return loss, agreements

    @staticmethod
    def backward(ctx, of_loss: Tensor, _of_agreements: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return of_loss.to(gradient.dtype) * gradient, None, None
