"""The draft on its own predictions, as in decoding, for all positions at once.

Shapes: T positions, L of one document, H hidden, A heads, G key-value heads, D head size.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

from eagle.draft.draft import attend_masked, attend_within_documents

# Lengths of documents are filled up to a multiple of this, so that a GPU gets few shapes, documents
# of one shape share a call, and its kernels find masks in the alignment that they need. A CPU gains
# nothing.
BUCKET = {"cpu": 1, "cuda": 256}


def rollout(
    draft: Callable[..., Tensor],
    features: Tensor,
    embeddings: Tensor,
    positions: Tensor,
    lengths: list[int],
    attn: str,
    steps: int,
    bounds: Tensor | None = None,
) -> Iterator[Tensor]:
    """Predicted features [T, H], from the given ones and then `steps` times from the draft's own.

    In each further step the input at position t is the feature that the last step predicted for t.

    Args:
        draft: predicts as `Draft.forward` does.
        features, embeddings: the draft's input pairs, each [T, H].
        positions: of each pair in its document, int64 [T].
        lengths: the number of pairs of each packed document, in order.
        attn, bounds: as in `attend_within_documents`.
    """
    attend = RolloutAttention(lengths, attn, bounds)
    begins = (positions == 0)[:, None]  # no step predicts a document's first feature
    inputs = features
    for _ in range(1 + steps):
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

    No kernel for packed documents has this mask, so from step 1 on documents of one bucket of
    lengths are the rows of one call with the mask written out. flex_attention would skip what no
    query sees, in one kernel for all; but it compiles with triton, which needs a C compiler where
    training runs, compiles again as shapes change, and has no backward pass on a CPU to test it.
    """

    def __init__(self, lengths: list[int], backend: str, bounds: Tensor | None = None):
        self.lengths = lengths
        self.first = attend_within_documents(lengths, backend, bounds)
        device = "cpu" if bounds is None else bounds.device.type
        self.buckets: dict[int, list[int]] = {}
        """Documents by their lengths, filled up."""
        for document, length in enumerate(lengths):
            size = length + -length % BUCKET[device]
            self.buckets.setdefault(size, []).append(document)
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        self.keys.append(key)
        self.values.append(value)
        if len(self.keys) == 1:
            return self.first(query, key, value)
        step = len(self.keys) - 1
        attended: dict[int, Tensor] = {}
        for size, documents in self.buckets.items():
            queries = self._rows(query, documents, size)
            keys, values = (
                torch.cat([self._rows(states, documents, size) for states in steps], dim=2)
                for steps in (self.keys, self.values)
            )  # [B, G, (step + 1) size, D]
            mask = _rollout_mask(size, step, query.device)
            found = attend_masked(queries, keys, values, mask)
            for row, document in enumerate(documents):
                attended[document] = found[row, :, : self.lengths[document]]
        return torch.cat([attended[d] for d in range(len(self.lengths))], dim=1)[None]

    def _rows(self, states: Tensor, documents: list[int], size: int) -> Tensor:
        """Some documents of states [1, G, T, D] as rows [B, G, size, D], filled with zeros."""
        parts = states[0].split(self.lengths, dim=1)
        filled = [
            functional.pad(parts[document], (0, 0, 0, size - self.lengths[document]))
            for document in documents
        ]
        return torch.stack(filled)


def _rollout_mask(length: int, step: int, device: torch.device) -> Tensor:
    """Which keys of steps 0 to `step` each position sees: bool [L, (step + 1) L]."""
    everything = torch.ones(length, length, dtype=torch.bool, device=device)
    blocks = [everything.tril(-step)]
    for i in range(1, step + 1):
        blocks.append(everything.tril(i - step).triu(i - step))  # one diagonal
    return torch.cat(blocks, dim=1)
