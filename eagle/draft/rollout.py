"""The draft on its own predictions, as in decoding, for all positions at once.

Shapes: T positions, L of one document, H hidden, A heads, G key-value heads, D head size.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from eagle.draft.draft import Draft, attend_within_documents


def rollout(
    draft: Draft,
    features: Tensor,
    embeddings: Tensor,
    positions: Tensor,
    lengths: list[int],
    attn: str,
    steps: int,
    autocast: torch.dtype | None = None,
) -> Iterator[Tensor]:
    """Predicted features [T, H], from the given ones and then `steps` times from the draft's own.

    In each further step the input at position t is the feature that the last step predicted for t.

    Args:
        features, embeddings: the draft's input pairs, each [T, H].
        positions: of each pair in its document, int64 [T].
        lengths: the number of pairs of each packed document, in order.
        attn: the backend, as in `attend_within_documents`.
        autocast: the precision of products; None: that of the weights.
    """
    attend = RolloutAttention(lengths, attn)
    begins = (positions == 0)[:, None]  # no step predicts a document's first feature
    inputs = features
    for _ in range(1 + steps):
        with torch.autocast(features.device.type, autocast, enabled=autocast is not None):
            predicted = draft(inputs, embeddings, positions, attend)
        yield predicted
        inputs = torch.where(begins, features, predicted.roll(1, 0))


class RolloutAttention:
    """Attention of a draft that reads the same documents several times, each time its own output.

    Step 0 reads true features with causal attention. In step j the feature at position t is the one
    predicted in step j - 1. So at t the draft has true features up to t - j, and its own feature of
    step i at t - j + i: position t sees the keys of step 0 up to t - j and, of each step i = 1 … j,
    the one key at t - j + i. That is how a chain of j + 1 drafted tokens is drafted in decoding,
    here for all positions at once (as in HASS, arXiv 2408.15766, section 3.2).
    """

    def __init__(self, lengths: list[int], backend: str):
        self.lengths = lengths
        self.first = attend_within_documents(lengths, backend)
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        self.keys.append(key)
        self.values.append(value)
        if len(self.keys) == 1:
            return self.first(query, key, value)
        queries = query.split(self.lengths, dim=2)
        keys, values = (
            zip(*(states.split(self.lengths, dim=2) for states in steps), strict=True)
            for steps in (self.keys, self.values)
        )
        attended = []
        for length, query, key, value in zip(self.lengths, queries, keys, values, strict=True):
            attended.append(
                functional.scaled_dot_product_attention(
                    query,
                    torch.cat(key, dim=2),  # [1, G, (j + 1) L, D]
                    torch.cat(value, dim=2),
                    attn_mask=_rollout_mask(length, len(key) - 1, query.device),
                    enable_gqa=True,
                )
            )
        return torch.cat(attended, dim=2)


def _rollout_mask(length: int, step: int, device: torch.device) -> Tensor:
    """Which keys of steps 0 to `step` each position sees: bool [L, (step + 1) L]."""
    everything = torch.ones(length, length, dtype=torch.bool, device=device)
    blocks = [everything.tril(-step)]
    for i in range(1, step + 1):
        blocks.append(everything.tril(i - step).triu(i - step))  # one diagonal
    return torch.cat(blocks, dim=1)
