"""The vocabulary of a softmax: all tokens, or some of them.

Shapes: S tokens, H hidden, V vocabulary of the verifier.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Vocabulary(NamedTuple):
    """The tokens that a softmax runs over."""

    head: Tensor
    """Their rows of the verifier's head [S, H]. Products run in its dtype, softmaxes in float32."""
    token_ids: Tensor
    """The token of each row, int64 [S]."""


def full_vocabulary(head: Tensor) -> Vocabulary:
    """All tokens of head [V, H]."""
    tokens = torch.arange(len(head), device=head.device)
    return Vocabulary(head, tokens)


def part_of_vocabulary(head: Tensor, token_ids: Tensor) -> Vocabulary:
    """Some tokens alone: a softmax over them gives all others no probability.

    A few thousand tokens make up nearly all of a data set. The product with the head, which takes
    most of a small model's training, shrinks with their number. FR-Spec (arXiv 2502.14856) does the
    same to drafting, as evaluate.draft_vocabulary does here. Validation uses the whole head.

    Args:
        head: [V, H].
        token_ids: int64 [S].
    """
    token_ids = token_ids.to(head.device)
    return Vocabulary(head[token_ids], token_ids)
