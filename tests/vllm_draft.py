"""A draft read from its exported folder as vLLM 0.32 reads it, written out in plain torch.

Its rotary embedding comes from config.json alone (`get_rope`): the type, the base and the fields of
`rope_parameters`, over head_dim x partial_rotary_factor of each head.
"""

import json
import math
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor


def predicted_features(
    folder: Path, features: Tensor, embeddings: Tensor, first_position: int
) -> Tensor:
    """Predicted features [T, H] from features [T, H] and embeddings [T, H] of T tokens in a row."""
    config = json.loads((folder / "config.json").read_text())
    weights = {name: w.to(features) for name, w in load_file(folder / "model.safetensors").items()}
    hidden = torch.cat([embeddings, features], dim=-1) @ weights["fc.weight"].T
    hidden = hidden + _attended(hidden, config, weights, first_position)
    root = (hidden.square().mean(-1, keepdim=True) + config["rms_norm_eps"]).sqrt()
    inner = hidden / root * weights["layers.0.post_attention_layernorm.weight"]
    gate, up, down = (
        weights[f"layers.0.mlp.{name}_proj.weight"] for name in ("gate", "up", "down")
    )
    return hidden + (torch.nn.functional.silu(inner @ gate.T) * (inner @ up.T)) @ down.T


def _attended(hidden: Tensor, config: dict, weights: dict[str, Tensor], first: int) -> Tensor:
    size = config["head_dim"]
    query, key, value = (
        (hidden @ weights[f"layers.0.self_attn.{name}_proj.weight"].T)
        .unflatten(-1, (-1, size))
        .transpose(0, 1)  # [A or G, T, D]
        for name in "qkv"
    )
    positions = torch.arange(first, first + len(hidden), dtype=hidden.dtype)
    frequencies, scale = _rotary(config["rope_parameters"], size)
    angles = positions[:, None] * frequencies.to(hidden)  # [T, half of what is rotated]
    cosine, sine = angles.cos() * scale, angles.sin() * scale
    query, key = (_rotated(states, cosine, sine) for states in (query, key))
    groups = len(query) // len(key)
    key, value = (states.repeat_interleave(groups, dim=0) for states in (key, value))
    scores = query @ key.transpose(1, 2) / size**0.5
    unseen = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    shares = scores.masked_fill(unseen, float("-inf")).softmax(-1)
    joined = (shares @ value).transpose(0, 1).flatten(1)
    return joined @ weights["layers.0.self_attn.o_proj.weight"].T


def _rotated(states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    half = cosine.shape[-1]
    first, second, rest = states[..., :half], states[..., half : 2 * half], states[..., 2 * half :]
    turned = (first * cosine - second * sine, second * cosine + first * sine, rest)
    return torch.cat(turned, dim=-1)


def _rotary(rope: dict, head_size: int) -> tuple[Tensor, float]:
    """Frequencies in radians a position, and the factor of cosine and sine."""
    size = int(head_size * rope.get("partial_rotary_factor", 1.0))
    plain = rope["rope_theta"] ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    kind = rope.get("rope_type", "default")
    if kind == "default":
        return plain, 1.0
    factor = rope["factor"]
    if kind == "linear":
        return plain / factor, 1.0
    original = rope["original_max_position_embeddings"]
    if kind == "llama3":
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        turns = original * plain / (2 * math.pi)  # within the original length
        kept = ((turns - low) / (high - low)).clamp(0, 1)
        return kept * plain + (1 - kept) * plain / factor, 1.0
    assert kind == "yarn", kind

    def dimension(turns: float) -> float:
        base = math.log(rope["rope_theta"])
        return size * math.log(original / (turns * 2 * math.pi)) / (2 * base)

    low = max(math.floor(dimension(rope.get("beta_fast", 32))), 0)
    high = min(math.ceil(dimension(rope.get("beta_slow", 1))), size - 1)
    steps = torch.arange(size // 2, dtype=torch.float64)
    scaled = ((steps - low) / max(high - low, 1e-3)).clamp(0, 1)
    mscale = rope.get("attention_factor") or 0.1 * math.log(factor) + 1
    return scaled * plain / factor + (1 - scaled) * plain, mscale
