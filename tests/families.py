"""A tiny random verifier of any family of causal language models that transformers has."""

from pathlib import Path

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, GenerationConfig, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tests.tiny import CHATML, make_tokenizer

FAMILIES = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)

# Sizes by the names that configs have for them. What a config does not have is left out.
SIZES = {
    "vocab_size": 300, "hidden_size": 32, "n_embd": 32, "d_model": 32, "embedding_size": 32,
    "intermediate_size": 48, "ffn_dim": 48, "n_inner": 48, "ffn_hidden_size": 48,
    "decoder_ffn_dim": 48, "encoder_ffn_dim": 48, "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "num_hidden_layers": 2, "n_layer": 2, "n_layers": 2, "num_layers": 2, "decoder_layers": 2,
    "encoder_layers": 2,
    "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "num_heads": 4,
    "decoder_attention_heads": 4, "encoder_attention_heads": 4,
    "num_key_value_heads": 2, "num_kv_heads": 2, "head_dim": 8, "rotary_dim": 8,
    "max_position_embeddings": 256, "n_positions": 256, "n_ctx": 256, "sliding_window": 256,
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "n_shared_experts": 1, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1,
    "kv_lora_rank": 8, "q_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8,
    "qk_head_dim": 16, "v_head_dim": 8, "query_pre_attn_scalar": 8,
    "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "state_size": 16, "ssm_state_size": 16, "mamba_d_state": 16,
    "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_expand": 2, "mamba_n_groups": 1,
    "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 300, "laurel_rank": 8,
    "initializer_range": 0.3,  # far from uniform, so that greedy decoding has clear choices
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
# Where a family's config asks for something else, or its default is of the real model's size.
OTHERWISE: dict[str, dict] = {
    # latent attention makes a key for every query head
    name: {"num_key_value_heads": 4}
    for name in ("deepseek_v2", "deepseek_v3", "axk1", "glm4_moe_lite", "longcat_flash",
                 "minicpm3", "youtu")
}  # fmt: skip


def tiny_config(family: str, **values: object) -> PretrainedConfig:
    """A config of a family with small sizes, everything else as the family has it."""
    config_class = CONFIG_MAPPING[family]
    default = config_class()
    small = _sizes(default)
    for name in getattr(config_class, "sub_configs", None) or {}:
        part = getattr(default, name, None)
        if isinstance(part, PretrainedConfig):
            small[name] = _sizes(part)
    return config_class(**small | OTHERWISE.get(family, {}) | values)


def make_family(family: str, folder: Path, template: str = CHATML, **values: object) -> Path:
    """Write a random model of a family with the tiny tokenizer, as `tests.tiny.make_verifier`."""
    tokenizer = make_tokenizer(template)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(family, **values), dtype=torch.float32)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _sizes(config: PretrainedConfig) -> dict[str, object]:
    return {
        name: SIZES[name]
        for name, value in config.to_dict().items()
        if name in SIZES and not isinstance(value, bool | list | dict)
    }
