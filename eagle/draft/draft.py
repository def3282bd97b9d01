"""The EAGLE-1 draft: one decoder layer over features and embeddings.

Shapes: T positions, H hidden, A heads, G key-value heads, D head size. Weight names are those of
the official layout (SafeAILab/EAGLE, `cnets1.py`), so that a checkpoint needs no renaming.
"""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaConfig, PretrainedConfig
from transformers.models.llama.modeling_llama import (
    LlamaMLP,
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
    apply_rotary_pos_emb,
)

from eagle.errors import InputError
from eagle.files import read_json
from eagle.verifier.attention import KERNELS, attend_one_by_one, documents_bounds
from eagle.verifier.configuration import full_attention_rope

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Attention of queries [1, A, T, D] to keys and values [1, G, T, D]: [1, A, T, D].

The caller decides which keys a query sees: in training those of its own document among several
packed ones, in decoding those in a cache.
"""

ACTIVATION = "silu"
"""The activation of the MLP, whatever the verifier's is: engines serve no other."""
ROPE_FIELDS = {
    "default": (),
    "linear": ("factor",),
    "llama3": (
        "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings",
    ),
    "yarn": ("factor", "original_max_position_embeddings", "beta_fast", "beta_slow"),
}  # fmt: skip
"""Rope types of a new draft, and what each has beside its base: transformers, vLLM and SGLang
compute the same frequencies from these, and differ in what other types and fields mean."""


def draft_config(path: Path | None, verifier: PretrainedConfig) -> LlamaConfig:
    """The draft's configuration: a Llama config of one layer.

    Args:
        path: JSON file; None takes one layer of the verifier's own shape.
        verifier: the config of its text model. The context is always the verifier's; vocabulary and
            rope are where the file leaves them out.

    Raises:
        InputError: the file is not a config, or it does not fit the verifier.
    """
    where = "the draft's config" if path is None else str(path)
    fields = _shape_of(verifier) if path is None else read_json(path)
    if not isinstance(fields, dict) or "hidden_size" not in fields:
        raise InputError(f"{path}: not a Llama config: `hidden_size` missing")
    rope = draft_rope(verifier)
    if not {"rope_theta", "rope_scaling", "rope_parameters"} & fields.keys():
        fields["rope_parameters"] = rope
    if fields.setdefault("hidden_act", ACTIVATION) != ACTIVATION:
        raise InputError(
            f"{path}: hidden_act is {fields['hidden_act']}; vLLM and SGLang serve drafts with "
            f"{ACTIVATION} alone"
        )
    fields.setdefault("vocab_size", verifier.vocab_size)
    fields |= {
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": 1,
        "max_position_embeddings": verifier.max_position_embeddings,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": verifier.bos_token_id,
        "eos_token_id": verifier.eos_token_id,
        "pad_token_id": None,
    }
    fields = {"bias": False, "qkv_bias": False, "initializer_range": 0.02} | fields
    config = llama_config(fields, where)
    check_fit(config, verifier, where)
    if config.rope_parameters != rope:
        raise InputError(
            f"{where}: the draft's rope is {config.rope_parameters}; a draft for this verifier has "
            f"{rope}. Leave rope out of the file"
        )
    return config


def draft_rope(verifier: PretrainedConfig) -> dict:
    """The rotary parameters of a new draft: those of the verifier's layers that see the whole text.

    A draft rotates whole heads, whatever part of them the verifier rotates. Of a rope type that
    engines read in different ways (see ROPE_FIELDS) it takes the base alone. Up to the length for
    which a verifier with such a type was made, `dynamic` is just that.
    """
    theirs = full_attention_rope(verifier)
    kind = theirs["rope_type"] if theirs["rope_type"] in ROPE_FIELDS else "default"
    fields = {name: theirs[name] for name in ROPE_FIELDS[kind] if theirs.get(name) is not None}
    return {"rope_type": kind, "rope_theta": theirs["rope_theta"]} | fields


def llama_config(fields: dict, where: str) -> LlamaConfig:
    """A Llama config with these fields.

    Args:
        where: the file that they come from, for the message.

    Raises:
        InputError: transformers refuses one of them.
    """
    try:
        return LlamaConfig(**fields)
    except Exception as error:  # transformers' checks of a field raise many types of errors
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{where}: not a Llama config: {reason}") from None


def check_fit(draft: PretrainedConfig, verifier: PretrainedConfig, where: str) -> None:
    """Check that a draft reads and predicts features of the verifier's size and vocabulary.

    Args:
        where: the draft's file or folder, for the message.

    Raises:
        InputError: hidden size or vocabulary differ.
    """
    for name in ("hidden_size", "vocab_size"):
        ours, theirs = getattr(draft, name), getattr(verifier, name)
        if ours != theirs:
            raise InputError(
                f"{where}: the draft's {name} is {ours}, the verifier's is {theirs}; choose the "
                "verifier that the draft belongs to"
            )


def _shape_of(verifier: PretrainedConfig) -> dict:
    """The shape of one layer: where layers differ, of the last one that sees the whole text."""
    kinds = getattr(verifier, "layer_types", None) or []
    full = [number for number, kind in enumerate(kinds) if kind == "full_attention"]
    layer = verifier.per_layer_config[full[-1] if full else -1]
    heads = layer.num_attention_heads
    key_value_heads = getattr(layer, "num_key_value_heads", None)
    shape = {
        "hidden_size": layer.hidden_size,
        # a model whose MLPs are all experts states no width, and Falcon's is this one
        "intermediate_size": getattr(layer, "intermediate_size", 4 * layer.hidden_size),
        "num_attention_heads": heads,
        "num_key_value_heads": key_value_heads or getattr(layer, "num_kv_heads", heads),
        "head_dim": getattr(layer, "head_dim", None),
    }
    if hasattr(layer, "rms_norm_eps"):
        shape["rms_norm_eps"] = layer.rms_norm_eps
    return shape


class Draft(nn.Module):
    """Predicts feature f_{t+1} from f_t and the embedding of token t+1 (paper, section 3.1).

    `fc` joins the pair (embedding first), one Llama layer WITHOUT an input norm follows, and
    there is no final norm: the output goes to the verifier's head as it is and, in decoding, is the
    next input feature.
    """

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.config = config
        self.fc = nn.Linear(2 * config.hidden_size, config.hidden_size, bias=config.bias)
        self.layers = nn.ModuleList([_Layer(config)])
        self.rotary = LlamaRotaryEmbedding(config)

    def cast(self, dtype: torch.dtype) -> "Draft":
        """Convert the weights in place; rotary frequencies stay float32, as the verifier's do."""
        for parameter in self.parameters():
            parameter.data = parameter.data.to(dtype)
        return self

    def forward(
        self, features: Tensor, embeddings: Tensor, positions: Tensor, attend: Attend
    ) -> Tensor:
        """Predicted features [T, H] from features [T, H], embeddings [T, H], positions [T]."""
        hidden = self.fc(torch.cat([embeddings, features], dim=-1))[None]  # [1, T, H]
        rotary = self.rotary(hidden, positions[None])  # cosine and sine, each [1, T, D]
        return self.layers[0](hidden, rotary, attend)[0]


class _Layer(nn.Module):
    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.self_attn = _Attention(config)
        self.mlp = LlamaMLP(config)
        self.post_attention_layernorm = LlamaRMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, hidden: Tensor, rotary: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        return self.finish(hidden, attend(*self.self_attn.project(hidden, rotary)))

    def finish(self, hidden: Tensor, attended: Tensor) -> Tensor:
        """Output [1, T, H] from the layer's input [1, T, H] and attention's output [1, A, T, D]."""
        hidden = hidden + self.self_attn.o_proj(attended.transpose(1, 2).flatten(2))
        # The norm's weight may be float32 where the products are of 16 bits. Each product casts for
        # itself, so that the two gradients are added in float32.
        normalized, dtype = self.post_attention_layernorm(hidden), hidden.dtype
        gate = self.mlp.gate_proj(normalized.to(dtype))
        up = self.mlp.up_proj(normalized.to(dtype))
        return hidden + self.mlp.down_proj(self.mlp.act_fn(gate) * up)


class _Attention(nn.Module):
    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.head_dim = config.head_dim
        queries, keys = (
            count * config.head_dim
            for count in (config.num_attention_heads, config.num_key_value_heads)
        )
        self.q_proj = nn.Linear(config.hidden_size, queries, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.hidden_size, keys, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.hidden_size, keys, bias=config.qkv_bias)
        self.o_proj = nn.Linear(queries, config.hidden_size, bias=False)

    def project(
        self, hidden: Tensor, rotary: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries [1, A, T, D] and keys, and values, [1, G, T, D], of hidden [1, T, H]."""
        query, key, value = (
            projection(hidden).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        return *apply_rotary_pos_emb(query, key, *rotary), value


def attend_within_documents(
    lengths: list[int], backend: str, bounds: Tensor | None = None
) -> Attend:
    """Causal attention within each of several documents packed into one sequence.

    Args:
        lengths: of the packed documents, in order; they add up to T.
        backend: one of `eagle.verifier.attention.BACKENDS`.
        bounds: `documents_bounds(lengths, device)`, where that was made ahead.
    """
    if backend == "eager":
        return lambda query, key, value: _eager(query, key, value, lengths)
    if backend == "sdpa":
        return lambda query, key, value: attend_one_by_one(query, key, value, lengths)
    longest = max(lengths)

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        edges = documents_bounds(lengths, query.device) if bounds is None else bounds
        states = (states[0].transpose(0, 1) for states in (query, key, value))  # [T, A or G, D]
        return KERNELS[backend](*states, edges, longest).transpose(0, 1)[None]

    return attend


def attend_masked(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of queries [B, A, T, D] to keys and values [B, G, K, D]: [B, A, T, D].

    Args:
        mask: which keys a query sees, bool, [T, K] or with leading dimensions; None: all.
    """
    groups = query.shape[1] // key.shape[1]
    # On a GPU torch has a fused kernel for grouped heads, and one for masks, and none for both.
    repeats = groups > 1 and mask is not None and query.is_cuda
    if repeats:
        key, value = (states.repeat_interleave(groups, dim=1) for states in (key, value))
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, enable_gqa=not repeats
    )


def _eager(query: Tensor, key: Tensor, value: Tensor, lengths: list[int]) -> Tensor:
    groups = query.shape[1] // key.shape[1]
    key, value = (states.repeat_interleave(groups, dim=1) for states in (key, value))
    document = torch.repeat_interleave(torch.tensor(lengths)).to(query.device)  # [T]
    seen = (document[:, None] == document[None]).tril()  # [T, T]
    scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
    weights = scores.masked_fill(~seen, float("-inf")).softmax(-1, dtype=torch.float32)
    return weights.to(value.dtype) @ value


def config_as_json(config: LlamaConfig) -> dict:
    """All fields of the config, as config.json states them."""
    return json.loads(config.to_json_string(use_diff=False))
