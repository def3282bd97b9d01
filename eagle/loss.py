"""The EAGLE-1 loss (paper, section 3.2): feature regression and soft classification.

Shapes: M counted positions, H hidden, V vocabulary, S tokens the softmax runs over.

With p the verifier's distribution, z = head @ predicted the draft's logits and Z = sum_v exp(z_v),

    classification = -sum_v p_v log softmax(z)_v = log Z - (sum_v p_v head_v) . predicted
    its gradient   = softmax(z) @ head - sum_v p_v head_v

so all that the loss needs of p is its mean head row, H numbers a position. They are computed once
with the features; every later pass multiplies by the head twice, not three times.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

# Rows whose logits exist at once, in the head's dtype and in float32: at most
# CHUNK * S * (4 + 2 * the head's bytes) is the loss's whole memory, 50 MB at S = 49,152 in
# bfloat16, and small enough to stay in a CPU's cache.
CHUNK = 128


class Teacher(NamedTuple):
    """The verifier's next-token distribution p at M positions, as far as training needs it."""

    mean: Tensor
    """sum_v p_v head_v [M, H]."""
    token: Tensor
    """The most likely token, int64 [M]."""


class Vocabulary(NamedTuple):
    """The tokens that softmaxes run over, the verifier's and the draft's alike."""

    head: Tensor
    """Their rows of the verifier's head [S, H]. Products run in its dtype, sums in float32."""
    token_ids: Tensor
    """int64 [S]."""


class Sums(NamedTuple):
    """Sums over counted positions; divide by their number."""

    regression: Tensor
    """SmoothL1 between predicted and true features, mean over H, summed over M."""
    classification: Tensor
    """Cross-entropy of softmax(head(predicted)) against softmax(head(true)), in nats."""
    agreements: Tensor
    """Positions where both heads' most likely tokens are the same."""


def whole_vocabulary(head: Tensor) -> Vocabulary:
    """The exact softmax over head [V, H]."""
    tokens = torch.arange(len(head), device=head.device)
    return Vocabulary(head, tokens)


def part_of_vocabulary(head: Tensor, token_ids: Tensor) -> Vocabulary:
    """Softmaxes over some tokens alone, as if the verifier gave the others no probability.

    A few thousand tokens make up nearly all a data set says; the products with the head, most of
    a small model's training, shrink with their number (FR-Spec, arXiv 2502.14856, does the same
    to drafting). Decoding and validation use the whole head.
    """
    token_ids = token_ids.to(head.device)
    return Vocabulary(head[token_ids], token_ids)


def teach(target: Tensor, vocabulary: Vocabulary) -> Teacher:
    """What the verifier would say after features target [M, H], among the vocabulary's tokens."""
    head = vocabulary.head
    mean = target.new_empty(target.shape, dtype=head.dtype)
    token = torch.empty(len(target), dtype=torch.int64, device=target.device)
    for start in range(0, len(target), CHUNK):
        rows = slice(start, start + CHUNK)
        logits = target[rows].to(head.dtype) @ head.T  # [C, V]
        token[rows] = vocabulary.token_ids[logits.argmax(-1)]
        wide = torch.promote_types(head.dtype, torch.float32)
        mean[rows] = logits.to(wide).softmax(-1).to(head.dtype) @ head
    return Teacher(mean, token)


@torch.no_grad()
def likeliest(predicted: Tensor, head: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The most likely token after predicted [M, H], int64 [M], and the `count` most likely ones
    in any order [M, count].

    The first is argmax's, as the teacher's is: of equal logits, common in bfloat16, topk may
    prefer another.
    """
    first, several = [], []
    for rows in predicted.to(head.dtype).split(CHUNK):
        logits = rows @ head.T  # [C, V]
        first.append(logits.argmax(-1))
        several.append(logits.topk(count).indices)
    return torch.cat(first), torch.cat(several)


def eagle_loss(predicted: Tensor, target: Tensor, teacher: Teacher, vocabulary: Vocabulary) -> Sums:
    """Both losses in chunks, without keeping logits.

    The head is frozen, so the gradient of the classification loss is known in the forward pass:
    only that [M, H] tensor is kept for the backward pass, nothing of shape [M, S].

    Args:
        predicted: [M, H], the draft's features at counted positions.
        target: [M, H], the verifier's features there, without noise.
        teacher: what the verifier says there, `teach(target, head)`.
    """
    wide = torch.promote_types(predicted.dtype, torch.float32)
    regression = functional.smooth_l1_loss(predicted.to(wide), target.to(wide), reduction="none")
    classification, agreements = _SoftCrossEntropy.apply(predicted, *teacher, *vocabulary)
    return Sums(regression.mean(-1).sum(), classification, agreements)


def reference_loss(predicted: Tensor, target: Tensor, head: Tensor) -> Sums:
    """The same, written plainly: what tests hold `eagle_loss` against."""
    logits, teacher = predicted @ head.T, target @ head.T
    regression = functional.smooth_l1_loss(predicted, target, reduction="none").mean(-1).sum()
    classification = -(teacher.softmax(-1) * logits.log_softmax(-1)).sum()
    return Sums(regression, classification, (logits.argmax(-1) == teacher.argmax(-1)).sum())


class _SoftCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx,
        predicted: Tensor,
        mean: Tensor,
        token: Tensor,
        head: Tensor,
        token_ids: Tensor,
    ) -> tuple[Tensor, Tensor]:
        wide = torch.promote_types(head.dtype, torch.float32)  # float64 stays float64
        loss = -(mean.to(wide) * predicted.to(wide)).sum()
        agreements = torch.zeros((), dtype=torch.int64, device=head.device)
        gradient = torch.empty_like(predicted) if ctx.needs_input_grad[0] else None
        for start in range(0, len(predicted), CHUNK):
            rows = slice(start, start + CHUNK)
            logits = predicted[rows].to(head.dtype) @ head.T  # [C, S]
            agreements += (token_ids[logits.argmax(-1)] == token[rows]).sum()
            logits = logits.to(wide)
            normalizer = logits.logsumexp(-1, keepdim=True)
            loss += normalizer.sum()
            if gradient is not None:
                expected = logits.sub_(normalizer).exp_().to(head.dtype) @ head  # [C, H]
                gradient[rows] = (expected.to(wide) - mean[rows].to(wide)).to(predicted.dtype)
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(agreements)
        return loss, agreements

    @staticmethod
    def backward(ctx, of_loss: Tensor, _of_agreements: Tensor):
        (gradient,) = ctx.saved_tensors
        return of_loss.to(gradient.dtype) * gradient, None, None, None, None
