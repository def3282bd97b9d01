"""Follow a few tokens through a model on torch's meta device, which has shapes and no numbers.

What a model's code does shows there in milliseconds, whatever its size: whether its head reads the
features themselves, whether the logits are what the head gives, and what each layer keeps of a
token.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

from eagle.errors import InputError, and_more, one_line

# Factors on the logits, by the names that configs have for them; with the value 1 nothing happens.
LOGIT_FACTORS = ("logits_scaling", "logit_scale", "lm_head_multiplier")
PROBED_TOKENS = 3

KeyValueShape = tuple[tuple[int, int], tuple[int, int]]
"""Heads and head size of a layer's keys, and of its values."""


class _Layer(CacheLayerMixin):
    """Records what a layer keeps of a token."""

    is_sliding = False

    def __init__(self) -> None:
        super().__init__()
        self.is_initialized = True
        self.shapes: list[KeyValueShape] = []

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to make room for."""

    def update(self, key: Tensor, value: Tensor, *_args, **_kwargs) -> tuple[Tensor, Tensor]:
        kept = [(states.shape[1], states.shape[3]) for states in (key, value)]  # [B, G, T, D]
        self.shapes.append((kept[0], kept[1]))
        return key, value

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, 0

    def get_seq_length(self) -> int:
        return 0

    def get_max_length(self) -> int:
        return PROBED_TOKENS


@torch.no_grad()
def follow(model: nn.Module, where: str) -> list[KeyValueShape]:
    """Follow three tokens through a model on the meta device.

    Args:
        where: what messages call it.

    Returns:
        What each layer keeps of a token.

    Raises:
        InputError: its features, logits or attention are not what a draft can continue.
    """
    text = model.config.get_text_config(decoder=True)
    kind = f"{where}: config.json: model_type {model.config.model_type}"
    head, decoder = model.get_output_embeddings(), model.get_decoder()
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    if others := sorted(kinds - {"full_attention", "sliding_attention"}):
        raise InputError(
            f"{kind}: layer_types holds {', '.join(others)}; decoding keeps the keys and values of "
            "every token, and serves full_attention and sliding_attention alone: choose another "
            "verifier"
        )
    if head is None or decoder is model:
        raise InputError(
            f"{kind}: its head and its decoder are not apart; a causal language model is expected"
        )
    if getattr(head, "bias", None) is not None:
        raise InputError(f"{kind}: its head has a bias, which EAGLE-1 engines do not apply")
    read, written = (list(m.weight.shape) for m in (model.get_input_embeddings(), head))
    if read != written:
        raise InputError(
            f"{kind}: its embedding is {read} and its head {written}; a draft reads and writes one "
            "vocabulary, in the width of the features"
        )
    seen: dict[str, Any] = {}
    hooks = [
        decoder.register_forward_hook(
            lambda _module, _inputs, output: seen.update(features=output)
        ),
        head.register_forward_hook(
            lambda _module, inputs, output: seen.update(read=inputs[0], logits=output)
        ),
    ]
    layers = [_Layer() for _ in range(text.num_hidden_layers)]
    tokens = torch.zeros(1, PROBED_TOKENS, dtype=torch.int64, device="meta")
    mask = _mask(model.config._attn_implementation)
    try:
        output = model.eval()(
            input_ids=tokens,
            # as decoding gives them: one for each type of layer
            attention_mask=dict.fromkeys(kinds, mask) if len(kinds) > 1 else mask,
            position_ids=tokens,
            past_key_values=Cache(layers=layers),
            use_cache=True,
        )
        features = seen["features"].last_hidden_state
        shapes = [layer.shapes for layer in layers]
        as_read = _is_a_view(seen["read"], features)
        as_given = _is_a_view(output.logits, seen["logits"])
    except Exception as error:  # whatever a model's code does that is not what Llama's does
        raise InputError(
            f"{kind}: its attention does not keep keys and values of every token as Llama's does "
            f"({one_line(error)}): linear, recurrent, indexed or cross attention cannot be decoded "
            "speculatively here; choose another verifier"
        ) from None
    finally:
        for hook in hooks:
            hook.remove()
    without = [number for number, kept in enumerate(shapes) if len(kept) != 1]
    if without:
        raise InputError(
            f"{kind}: layer {without[0]} does not keep keys and values once a token"
            f"{and_more(without, 'layers')}: linear or recurrent attention cannot be decoded "
            "speculatively here; choose another verifier"
        )
    if not as_read:
        raise InputError(
            f"{kind}: its head does not read the last hidden states themselves; a draft's features "
            "would not be what the head expects"
        )
    factors = {name: getattr(text, name) for name in LOGIT_FACTORS if hasattr(text, name)}
    if not as_given and not (factors and all(value in (None, 1) for value in factors.values())):
        names = [*LOGIT_FACTORS, "final_logit_softcapping"]
        stated = [f"{n} = {getattr(text, n)}" for n in names if getattr(text, n, None)]
        raise InputError(
            f"{kind}: its logits are more than features times head "
            f"({', '.join(stated) or 'scaled or capped in its code'}); EAGLE-1 engines apply the "
            "head alone, so the draft's logits would differ"
        )
    return [kept[0] for kept in shapes]


def _mask(attn: str) -> Tensor:
    """All tokens seen by all: bool for SDPA, added to the scores for eager."""
    shape = (1, 1, PROBED_TOKENS, PROBED_TOKENS)
    if attn == "eager":
        return torch.zeros(shape, dtype=torch.bfloat16, device="meta")
    return torch.ones(shape, dtype=torch.bool, device="meta")


def _is_a_view(tensor: Tensor, of: Tensor) -> bool:
    """Whether a tensor is another one or a part of it, and nothing was computed from it."""
    return tensor.untyped_storage()._cdata == of.untyped_storage()._cdata
