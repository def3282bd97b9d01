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

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Attention of queries [1, A, T, D] to keys and values [1, G, T, D]: [1, A, T, D].

The caller decides which keys a query sees: in training those of its own document among several
packed ones, in decoding those in a cache.
"""

FROM_VERIFIER = ("vocab_size", "max_position_embeddings", "rope_parameters")
SHAPE = (
    "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim",
    "rms_norm_eps",
)  # fmt: skip
ACTIVATION = "silu"
"""The activation of the MLP, whatever the verifier's is: engines serve no other."""


def draft_config(path: Path | None, verifier: PretrainedConfig) -> LlamaConfig:
    """The draft's configuration: a Llama config of one layer.

    Args:
        path: JSON file; None takes one layer of the verifier's own shape.
        verifier: its config, from which FROM_VERIFIER is taken where the file leaves it out.

    Raises:
        InputError: the file is not a config, or it does not fit the verifier.
    """
    if path is None:
        fields = {name: getattr(verifier, name) for name in SHAPE if hasattr(verifier, name)}
    else:
        fields = read_json(path)
        if not isinstance(fields, dict) or "hidden_size" not in fields:
            raise InputError(f"{path}: not a Llama config: `hidden_size` missing")
        if {"rope_theta", "rope_scaling"} & fields.keys():
            fields.setdefault("rope_parameters", None)  # the file states rope the older way
    if not all(hasattr(verifier, name) for name in ("hidden_size", *FROM_VERIFIER)):
        raise InputError(
            f"the verifier is a {verifier.model_type}, without rotary embedding; a draft continues "
            "models of Llama's kind (Llama, Mistral, Qwen, Gemma, Phi-3 and so on)"
        )
    for name in FROM_VERIFIER:
        fields.setdefault(name, getattr(verifier, name))
    if fields.setdefault("hidden_act", ACTIVATION) != ACTIVATION:
        raise InputError(
            f"{path}: hidden_act is {fields['hidden_act']}; vLLM and SGLang serve drafts with "
            f"{ACTIVATION} alone"
        )
    if fields["rope_parameters"] is None:
        del fields["rope_parameters"]
    fields |= {
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": 1,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": verifier.bos_token_id,
        "eos_token_id": verifier.eos_token_id,
        "pad_token_id": None,
    }
    config = LlamaConfig(**{"bias": False, "qkv_bias": False, "initializer_range": 0.02} | fields)
    check_fit(config, verifier, str(path))
    return config


def check_fit(draft: PretrainedConfig, verifier: PretrainedConfig, where: str) -> None:
    """Check that the draft has in common with the verifier what it needs to continue its features.

    Args:
        where: the draft's file or folder, for the message.

    Raises:
        InputError: hidden size, vocabulary or rotary embedding differ.
    """
    for name in ("hidden_size", "vocab_size", "rope_parameters"):
        ours, theirs = getattr(draft, name), getattr(verifier, name)
        if ours != theirs:
            raise InputError(
                f"{where}: the draft's {name} is {ours}, the verifier's is {theirs}; they must "
                "be the same: choose the verifier that the draft belongs to, or correct the config"
            )


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

    def compile_layer(self, backend: str = "inductor") -> None:
        """Compile the operations before and after attention, for any number of positions.

        Attention itself is not compiled: it is a fused kernel already, and the kernel and the
        documents change from step to step.
        """
        layer = self.layers[0]
        options = {"backend": backend, "dynamic": True, "fullgraph": True}
        layer.self_attn.project = torch.compile(layer.self_attn.project, **options)
        layer.finish = torch.compile(layer.finish, **options)

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
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


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


BACKENDS = {
    "eager": "the mask is written out, for reference",
    "sdpa": "torch's fused kernel, a document at a time",
    "flash_attention_2": "one kernel for all documents, on GPUs",
}


def attend_within_documents(lengths: list[int], backend: str) -> Attend:
    """Causal attention within each of several documents packed into one sequence.

    Args:
        lengths: of the packed documents, in order; they add up to T.
        backend: one of BACKENDS.

    Raises:
        InputError: the backend is not installed.
    """
    if backend == "eager":
        return lambda query, key, value: _eager(query, key, value, lengths)
    if backend == "flash_attention_2":
        return _flash(lengths)

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        parts = zip(*(states.split(lengths, dim=2) for states in (query, key, value)), strict=True)
        return torch.cat(
            [
                functional.scaled_dot_product_attention(*part, is_causal=True, enable_gqa=True)
                for part in parts
            ],
            dim=2,
        )

    return attend


def _eager(query: Tensor, key: Tensor, value: Tensor, lengths: list[int]) -> Tensor:
    groups = query.shape[1] // key.shape[1]
    key, value = (states.repeat_interleave(groups, dim=1) for states in (key, value))
    document = torch.repeat_interleave(torch.tensor(lengths)).to(query.device)  # [T]
    seen = (document[:, None] == document[None]).tril()  # [T, T]
    scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
    weights = scores.masked_fill(~seen, float("-inf")).softmax(-1, dtype=torch.float32)
    return weights.to(value.dtype) @ value


def _flash(lengths: list[int]) -> Attend:
    try:
        from flash_attn import flash_attn_varlen_func
    except ImportError:
        raise InputError(
            "attn = flash_attention_2: flash-attn is not installed; install "
            "requirements-flash-attn.txt on a GPU machine, or choose sdpa"
        ) from None
    bounds = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        edges = bounds.to(query.device)
        states = (states[0].transpose(0, 1) for states in (query, key, value))  # [T, A or G, D]
        attended = flash_attn_varlen_func(
            *states, edges, edges, max(lengths), max(lengths), causal=True
        )
        return attended.transpose(0, 1)[None]

    return attend


def config_as_json(config: LlamaConfig) -> dict:
    """All fields of the config, as config.json states them."""
    return json.loads(config.to_json_string(use_diff=False))
