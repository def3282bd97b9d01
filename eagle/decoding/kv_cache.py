"""The key-value cache of decoding: buffers that are allocated once and never move.

Shapes: L layers, G key-value heads, C capacity in rows, D head size, T new tokens, K rows that are
read; batch 1.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

from eagle.verifier.arithmetic import KeyValueShape

BLOCK = 256
"""Capacities are multiples of this many rows."""


class Extent(NamedTuple):
    """How many rows of its cache a step reads."""

    length: int
    """Tokens of the text that the cache holds when the step begins, as the host knows them."""
    fixed: int | None = None
    """So many, whatever the text's length: a captured step. None: as many as there are."""

    def rows(self, newest: int) -> int:
        """K, once that many rows were written behind the text."""
        return self.fixed or self.length + newest


def capacity_for(rows: int, doubling: bool) -> int:
    """Whole blocks that hold this many rows.

    Args:
        doubling: one block, two, four, eight, …, so that texts of many lengths share few sizes.
    """
    blocks = -(-rows // BLOCK)
    return BLOCK * (2 ** (blocks - 1).bit_length() if doubling else blocks)


@dataclass
class _Place:
    """Where all layers put the new tokens, and how much of their buffers they give back."""

    rows: Tensor
    """int64 [T], on the device."""
    read: int
    """K."""


class KeyValueCache(Cache):
    """A transformers cache of fixed capacity, in which nothing moves but what is told to.

    How many tokens it holds is a number on the device. New tokens are written behind them, and
    belong to the text only once `keep` says which of them do: of a verified tree only the accepted
    path. What lies behind the text is hidden by the masks (`attention_mask`), and written over.
    """

    def __init__(
        self,
        shapes: Sequence[KeyValueShape],
        capacity: int,
        dtype: torch.dtype,
        device: torch.device,
    ):
        """Allocate room for `capacity` rows.

        Args:
            shapes: heads and head size of each layer's keys and values; layers may differ, and
                latent attention keeps other things than keys (`eagle.verifier.admission`).
        """
        kept = [shape for pair in shapes for shape in pair]
        # one buffer for all that have the same shape, [2 L, 1, G, C, D] in most models; zeros,
        # because a row that a mask hides must be finite all the same
        self.buffers = {
            (heads, size): torch.zeros(count, 1, heads, capacity, size, dtype=dtype, device=device)
            for (heads, size), count in Counter(kept).items()
        }
        self.capacity = capacity
        self.length = torch.zeros((), dtype=torch.int64, device=device)
        """Number of tokens of the text that it holds."""
        self.place = _Place(self.length[None], capacity)
        parts = {shape: iter(buffer) for shape, buffer in self.buffers.items()}
        super().__init__(layers=[_Layer(next(parts[k]), next(parts[v]), self) for k, v in shapes])

    def clear(self) -> None:
        """Begin another text in the same buffers."""
        self.length.zero_()

    def write_to(self, rows: Tensor, read: int) -> None:
        """Say where the next tokens are written, int64 [T], and how many rows are read, K."""
        self.place.rows, self.place.read = rows, read

    def keep(self, rows: Tensor | None, count: Tensor | int) -> None:
        """Let `count` of the tokens behind the text join it.

        Args:
            rows: their places behind the text, int64 [R], ascending; those after the first `count`
                stand for nothing. None: they are the first ones already.
        """
        if rows is not None:
            target = self.length + torch.arange(len(rows), device=rows.device)
            for buffer in self.buffers.values():
                buffer.index_copy_(3, target, buffer.index_select(3, self.length + rows))
        self.length += count


class _Layer(CacheLayerMixin):
    is_sliding = False

    def __init__(self, keys: Tensor, values: Tensor, cache: KeyValueCache):
        super().__init__()
        self.keys, self.values = keys, values  # each [1, G, C, D]
        self.length, self.place = cache.length, cache.place
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: the buffers exist from the beginning."""

    def update(self, key: Tensor, value: Tensor, *_args, **_kwargs) -> tuple[Tensor, Tensor]:
        """Write keys and values [1, G, T, D]; returns the rows that are read [1, G, K, D]."""
        rows, read = self.place.rows, self.place.read
        self.keys.index_copy_(2, rows, key)
        self.values.index_copy_(2, rows, value)
        return self.keys[:, :, :read], self.values[:, :, :read]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.place.read, 0

    def get_seq_length(self) -> Tensor:
        return self.length

    def get_max_length(self) -> int:
        return self.keys.shape[2]


def attention_mask(seen: Tensor, before: Tensor, read: int) -> Tensor:
    """Bool [T, K]: every row sees the `before` first keys, and the newest ones that `seen` says.

    Args:
        seen: which of the newest keys each row sees, bool [T, newest].
        before: number of keys before the newest ones, a number on the device.
        read: K.
    """
    newest = torch.arange(read, device=seen.device) - before  # a key's number among the newest
    last = seen.shape[1] - 1
    among = seen[:, newest.clamp(min=0, max=last)]
    return (newest < 0) | (among & (newest <= last))
