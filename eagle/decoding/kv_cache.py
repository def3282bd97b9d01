"""The key-value cache of decoding: buffers that are allocated once.

Shapes: L layers, G key-value heads, C capacity in tokens, D head size, T new tokens; batch 1.
"""

import torch
from torch import Tensor
from transformers import Cache, PretrainedConfig
from transformers.cache_utils import CacheLayerMixin

from eagle.errors import InputError


class KeyValueCache(Cache):
    """A transformers cache of fixed capacity, which is not copied when tokens come or go.

    New tokens are appended. Afterwards any of them can be kept and the others dropped: after a tree
    is verified, only the rows of the accepted path stay.
    """

    def __init__(
        self, config: PretrainedConfig, capacity: int, dtype: torch.dtype, device: torch.device
    ):
        """Allocate room for `capacity` tokens.

        Raises:
            InputError: a layer does not attend to the whole text.
        """
        types = getattr(config, "layer_types", None) or ["full_attention"]
        if others := set(types) - {"full_attention", "sliding_attention"}:
            raise InputError(
                f"{config.model_type}: a verifier with {', '.join(sorted(others))}; decoding needs "
                "one whose layers all see the whole text"
            )
        window = getattr(config, "sliding_window", None)
        if window is not None and window < capacity:
            raise InputError(
                f"{config.model_type}: a verifier with a sliding window of {window} tokens, and "
                f"{capacity} are to be read; shorten the prompts or lower "
                "evaluate.maximum_new_tokens"
            )
        heads = config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // heads
        shape = (config.num_hidden_layers, 2, 1, config.num_key_value_heads, capacity, size)
        self.states = torch.empty(shape, dtype=dtype, device=device)  # [L, 2, 1, G, C, D]
        super().__init__(layers=[_Layer(*layer) for layer in self.states])

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
            at = torch.tensor(rows, device=self.states.device) + start
            self.states[..., start:end, :] = self.states[..., at, :]
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
