"""The key-value cache of decoding: buffers that are allocated once.

Shapes: L layers, G key-value heads, C capacity in tokens, D head size, T new tokens; batch 1.
"""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

from eagle.verifier.arithmetic import KeyValueShape


class KeyValueCache(Cache):
    """A transformers cache of fixed capacity, which is not copied when tokens come or go.

    New tokens are appended. Afterwards any of them can be kept and the others dropped: after a tree
    is verified, only the rows of the accepted path stay.
    """

    def __init__(
        self,
        shapes: Sequence[KeyValueShape],
        capacity: int,
        dtype: torch.dtype,
        device: torch.device,
    ):
        """Allocate room for `capacity` tokens.

        Args:
            shapes: heads and head size of each layer's keys and values; layers may differ, and
                latent attention keeps other things than keys (`eagle.verifier.admission`).
        """
        kept = [shape for pair in shapes for shape in pair]
        # one buffer for all that have the same shape, [2 L, 1, G, C, D] in most models
        self.buffers = {
            (heads, size): torch.empty(count, 1, heads, capacity, size, dtype=dtype, device=device)
            for (heads, size), count in Counter(kept).items()
        }
        parts = {shape: iter(buffer) for shape, buffer in self.buffers.items()}
        super().__init__(layers=[_Layer(next(parts[k]), next(parts[v])) for k, v in shapes])

    @property
    def length(self) -> int:
        """Number of tokens in the cache."""
        return self.layers[0].length

    def keep(self, rows: list[int], newest: int) -> None:
        """Keep only some of the newest tokens, and all tokens before those.

        Args:
            rows: positions among the newest tokens, ascending.
            newest: how many tokens count as the newest ones.
        """
        start = self.length - newest
        if rows != list(range(len(rows))):
            end = start + len(rows)
            for buffer in self.buffers.values():
                at = torch.tensor(rows, device=buffer.device) + start
                buffer[..., start:end, :] = buffer[..., at, :]
        for layer in self.layers:
            layer.length = start + len(rows)


class _Layer(CacheLayerMixin):
    is_sliding = False

    def __init__(self, keys: Tensor, values: Tensor):
        super().__init__()
        self.keys, self.values = keys, values  # each [1, G, C, D]
        self.length = 0
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: the buffers exist from the beginning."""

    def update(self, key: Tensor, value: Tensor, *_args, **_kwargs) -> tuple[Tensor, Tensor]:
        """Append keys and values [1, G, T, D]; returns those of all tokens."""
        start, self.length = self.length, self.length + key.shape[2]
        self.keys[:, :, start : self.length] = key
        self.values[:, :, start : self.length] = value
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return self.keys.shape[2]
