"""Follow a few tokens through a model on torch's meta device, which has shapes and no numbers.

What a model's code does shows there in milliseconds, whatever its size: whether its head reads the
features themselves, whether the logits are what the head gives, what each layer keeps of a token,
and whether more tokens can follow those that are kept, as a tree.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

from eagle.errors import InputError, and_more, one_line
from eagle.verifier.configuration import layers_of, windows_of

# Factors on the logits, by the names that configs have for them; with the value 1 nothing happens.
LOGIT_FACTORS = ("logits_scaling", "logit_scale", "lm_head_multiplier")
# Classes in transformers whose routers mix the tokens of a batch, as their own code remarks: what
# they give for a token differs between reading it alone and with others.
MIXING = ("DogeCDMoE",)
STEPS = (3, 2)
"""Tokens of the prompt that is followed, and of the tree after it."""

KeyValueShape = tuple[tuple[int, int], tuple[int, int]]
"""Heads and head size of a layer's keys, and of its values."""


class _Layer(CacheLayerMixin):
    """Keeps all tokens, and records in which shapes."""

    is_sliding = False

    def __init__(self) -> None:
        super().__init__()
        self.is_initialized = True
        self.shapes: list[KeyValueShape] = []
        """Of each step."""

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to make room for."""

    def update(self, key: Tensor, value: Tensor, *_args, **_kwargs) -> tuple[Tensor, Tensor]:
        kept = [(states.shape[1], states.shape[3]) for states in (key, value)]  # [B, G, T, D]
        if self.shapes:
            key = torch.cat([self.keys, key], dim=2)
            value = torch.cat([self.values, value], dim=2)
        self.keys, self.values = key, value
        self.shapes.append((kept[0], kept[1]))
        return key, value

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        return self.keys.shape[2] if self.shapes else 0

    def get_max_length(self) -> int:
        return sum(STEPS)


@torch.no_grad()
def follow(model: nn.Module, where: str) -> list[KeyValueShape]:
    """Follow a prompt and then a tree of tokens through a model on the meta device.

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
    if head is None or decoder in (model, head):
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
    cache = Cache(layers=layers)
    # what would look at numbers: other kernels, and frequencies that the length decides
    if model.config._attn_implementation not in ("eager", "sdpa"):
        model.set_attn_implementation("sdpa")
    for part in decoder.modules():
        if getattr(part, "rope_type", None) == "dynamic":
            part.rope_type = "default"
    try:
        model.eval()(input_ids=_tokens(STEPS[0]), past_key_values=cache, use_cache=True)
        output = model(
            input_ids=_tokens(STEPS[1]),
            attention_mask=_masks(model),
            position_ids=_tokens(STEPS[1]),
            past_key_values=cache,
            use_cache=True,
        )
        features = seen["features"].last_hidden_state
        as_read = _is_a_view(seen["read"], features)
        as_given = _is_a_view(output.logits, seen["logits"])
        parts = list(layers_of(model).modules())
    except NotImplementedError:
        raise InputError(
            f"{kind}: its code goes on by what the numbers are (which expert is asked for, say), "
            "so nothing can be told of it before its weights are read; choose another verifier"
        ) from None
    except Exception as error:  # whatever a model's code does that is not what Llama's does
        raise InputError(
            f"{kind}: it cannot be followed from a prompt to a tree of tokens, as Llama can "
            f"({one_line(error)}); choose another verifier"
        ) from None
    finally:
        for hook in hooks:
            hook.remove()
    shapes = [layer.shapes for layer in layers]
    without = [number for number, kept in enumerate(shapes) if len(kept) != len(STEPS)]
    if without:
        raise InputError(
            f"{kind}: layer {without[0]} does not keep keys and values of its own once a token"
            f"{and_more(without)}: linear or recurrent attention, or layers that share "
            "them, cannot be decoded speculatively here; choose another verifier"
        )
    if not all(getattr(part, "is_causal", True) for part in parts):
        raise InputError(
            f"{kind}: its tokens see the tokens after them, as an encoder's do; a causal language "
            "model is expected"
        )
    if mixing := [type(part).__name__ for part in parts if type(part).__name__ in MIXING]:
        raise InputError(
            f"{kind}: its experts ({mixing[0]}) give a token something else when others are read "
            "with it, and verifying reads several; choose another verifier"
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


def _tokens(count: int) -> Tensor:
    return torch.zeros(1, count, dtype=torch.int64, device="meta")


def _masks(model: nn.Module) -> Tensor | dict[str, Tensor]:
    """The tree's mask, as decoding gives it: one for each type of layer if there are several."""
    as_scores = model.config._attn_implementation == "eager"  # added to them
    dtype = torch.bfloat16 if as_scores else torch.bool
    mask = torch.zeros(1, 1, STEPS[1], sum(STEPS), dtype=dtype, device="meta")
    windows = windows_of(model.config)
    return dict.fromkeys(windows, mask) if len(windows) > 1 else mask


def _is_a_view(tensor: Tensor, of: Tensor) -> bool:
    """Whether a tensor is another one or a part of it, and nothing was computed from it."""
    return tensor.untyped_storage()._cdata == of.untyped_storage()._cdata
