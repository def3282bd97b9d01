"""The tokens that softmaxes run over."""

from typing import NamedTuple

import torch
from torch import Tensor


class Vocabulary(NamedTuple):
    """The tokens that softmaxes run over, the verifier's and the draft's alike."""

    head: Tensor
    """Their rows of the verifier's head [S, H]. Products run in its dtype, sums in float32."""
    token_ids: Tensor
    """Which token each row is, int64 [S]."""


def full_vocabulary(head: Tensor) -> Vocabulary:
    """The exact softmax over head [V, H]."""
    tokens = torch.arange(len(head), device=head.device)
    return Vocabulary(head, tokens)


def part_of_vocabulary(head: Tensor, token_ids: Tensor) -> Vocabulary:
    """Softmaxes over some tokens alone, as if the verifier gave the others no probability.

    A few thousand tokens make up nearly all a data set says; the products with the head, most of
    a small model's training, shrink with their number (FR-Spec, arXiv 2502.14856, does the same
    to drafting, as evaluate.draft_vocabulary does here). Validation uses the whole head.
    """
    token_ids = token_ids.to(head.device)
    return Vocabulary(head[token_ids], token_ids)
