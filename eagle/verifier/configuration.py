"""What a verifier's config says: its context, its rotary embedding, its windows, its layers."""

from pathlib import Path

from torch import nn
from transformers import AutoConfig, PretrainedConfig

from eagle.errors import InputError, one_line

# Rope types whose frequencies change when a text grows beyond the original length: what was cached
# before that is wrong after it.
CHANGING_ROPE = ("dynamic", "longrope")


def load_config(folder: Path) -> PretrainedConfig:
    """config.json of a checkpoint.

    Raises:
        InputError: absent, damaged, or of a model that this transformers does not have.
    """
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a config class raises whatever its checks of a field do
        raise InputError(f"{folder / 'config.json'}: cannot be loaded: {one_line(error)}") from None


def windows_of(config: PretrainedConfig) -> dict[str, int | None]:
    """How many tokens back each type of layer sees, itself included; None: all.

    Without several types there is one entry. A window of 0 is none (Qwen2's configs have it).
    """
    text = config.get_text_config(decoder=True)
    window = getattr(text, "sliding_window", None) or None
    kinds = getattr(text, "layer_types", None) or ["sliding_attention"]
    return {kind: window if kind == "sliding_attention" else None for kind in sorted(set(kinds))}


def context_of(config: PretrainedConfig) -> int:
    """Longest text in tokens that the verifier can read: what it was made for, and no longer than
    its rotary frequencies stay the same."""
    text = config.get_text_config(decoder=True)
    context = text.max_position_embeddings
    rope = full_attention_rope(text)
    if rope and rope.get("rope_type") in CHANGING_ROPE:
        original = rope.get("original_max_position_embeddings") or getattr(
            text, "original_max_position_embeddings", None
        )
        context = min(context, original or context)
    return context


def full_attention_rope(config: PretrainedConfig) -> dict | None:
    """The rotary parameters of the layers that see the whole text; None where there are none.

    Some models state them by the type of a layer (Gemma 3, OLMo 3).
    """
    rope = getattr(config, "rope_parameters", None)
    if not rope:
        return None
    return rope.get("full_attention", rope)


def layers_of(model: nn.Module) -> nn.ModuleList:
    """The layers of a model's decoder, whatever their list is called.

    Raises:
        LookupError: they are not in one list.
    """
    count = model.config.get_text_config(decoder=True).num_hidden_layers
    for module in model.get_decoder().modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise LookupError(f"its decoder has no list of {count} layers")
