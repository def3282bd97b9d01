"""A tiny random verifier of any family of causal language models that transformers has."""

from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, GenerationConfig, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tests.tiny import CHATML, make_tokenizer

FAMILIES = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)

# Sizes by the names that configs have for them. What a config does not have is left out. Windows
# are shorter than every text.
SIZES = {
    "vocab_size": 300, "hidden_size": 32, "n_embd": 32, "d_model": 32, "emb_dim": 32,
    "embedding_size": 32,
    "intermediate_size": 48, "ffn_dim": 48, "n_inner": 48, "ffn_hidden_size": 48,
    "decoder_ffn_dim": 48, "encoder_ffn_dim": 48, "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "num_hidden_layers": 2, "n_layer": 2, "n_layers": 2, "num_layers": 2, "decoder_layers": 2,
    "encoder_layers": 2,
    "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "num_heads": 4,
    "decoder_attention_heads": 4, "encoder_attention_heads": 4,
    "num_key_value_heads": 2, "num_kv_heads": 2, "head_dim": 8, "rotary_dim": 8,
    "max_position_embeddings": 256, "n_positions": 256, "n_ctx": 256, "max_seq_len": 256,
    "sliding_window": 8, "attention_chunk_size": 8, "keep_window_size": 8,
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "n_shared_experts": 1, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1,
    "kv_lora_rank": 8, "q_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8,
    "qk_head_dim": 16, "v_head_dim": 8, "query_pre_attn_scalar": 8,
    "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "state_size": 16, "ssm_state_size": 16, "mamba_d_state": 16,
    "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_expand": 2, "mamba_n_groups": 1,
    "n_mamba_heads": 2, "mamba_head_dim": 16, "mamba_ngroups": 1,
    "encoder_hash_byte_group_vocab": 300, "hidden_size_global": 32,
    "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 300, "laurel_rank": 8,
    "initializer_range": 0.3,  # far from uniform, so that greedy decoding has clear choices
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def _rope(kind: str, **values: object) -> dict:
    """Rotary parameters; those that stretch a context stretch one of 64 tokens."""
    unstretched = kind in ("default", "dynamic", "linear")
    stretched = {} if unstretched else {"original_max_position_embeddings": 64}
    return {"rope_type": kind, "rope_theta": 500.0} | stretched | values


# latent attention makes a key for every query head
LATENT = {"num_key_value_heads": 4}
INDEXER = {
    "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 8,
    "indexer_compress_ratio": 2,
}  # fmt: skip
# Where a family's config asks for something else, or its default is of the real model's size.
OTHERWISE: dict[str, dict] = {
    **dict.fromkeys(
        ("deepseek_v2", "deepseek_v3", "axk1", "glm4_moe_lite", "longcat_flash", "minicpm3",
         "youtu"),
        LATENT,
    ),
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": _rope("default", mrope_section=[2, 1, 1])},
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 500.0, "clip_qkv": 8.0},
        "ffn_config": {"hidden_size": 32, "ffn_hidden_size": 48},
    },
    "dots3_note_audio_encoder": {"adapter_input_size": 32, "adapter_out_dim": 32},
    "dots3_note_vision_encoder": {
        "adapter_in_dim": 32, "adapter_out_dim": 32, "mlp_layer_types": ["dense", "sparse"],
    },
    "dots3_note_text": LATENT | {
        "swa_num_attention_heads": 4, "swa_num_key_value_heads": 4, "swa_q_lora_rank": 8,
        "swa_kv_lora_rank": 8, "swa_head_dim": 16, "swa_qk_nope_head_dim": 8, "swa_v_head_dim": 8,
    },
    "falcon_h1": {"mamba_d_ssm": 64},
    # as in the published ones, the last layers read the keys and values of earlier ones
    "gemma3n_text": {
        "num_hidden_layers": 4, "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "longcat_flash": LATENT | {"expert_ffn_hidden_size": 16, "zero_expert_num": 2, "moe_topk": 2},
    "mamba2": {"num_heads": 4, "head_dim": 16, "n_groups": 1},
    "qwen4_exp": INDEXER,
    "qwen4_exp_text": INDEXER,
    "reformer": {
        "is_decoder": True, "attn_layers": ["local", "lsh"], "attention_head_size": 8,
        "axial_pos_shape": [16, 16], "axial_pos_embds_dim": [16, 16],
    },
    "zamba": {"num_hidden_layers": 8},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"], "n_mamba_heads": 4},
    "zaya": {"num_experts_per_tok": 1},
}  # fmt: skip
WINDOWS = {"layer_types": ["sliding_attention", "full_attention"]}
# Forms of a family that its default config does not have, and published models do.
VARIANTS: dict[str, tuple[str, dict]] = {
    "cohere, logits as they are": ("cohere", {"logit_scale": 1.0}),
    "deepseek_v3, yarn": ("deepseek_v3", {"rope_parameters": _rope("yarn", factor=4.0)}),
    "doge, experts": ("doge", {"is_moe": True, "num_experts": 16}),
    "dots1, windows": ("dots1", WINDOWS),
    "falcon, ALiBi": ("falcon", {"alibi": True}),
    "falcon, new decoder architecture": ("falcon", {"new_decoder_architecture": True}),
    "gemma2, no caps": (
        "gemma2", {"final_logit_softcapping": None, "attn_logit_softcapping": None}
    ),
    "gemma3_text, bidirectional": ("gemma3_text", {"use_bidirectional_attention": True}),
    "gemma3_text, rope by type of layer": (
        "gemma3_text",
        {"rope_parameters": {
            "full_attention": _rope("linear", factor=8.0), "sliding_attention": _rope("default"),
        }},
    ),
    "gemma4_text, shared keys": (
        "gemma4_text", {"layer_types": WINDOWS["layer_types"] * 2, "num_hidden_layers": 4,
                        "num_kv_shared_layers": 2},
    ),
    "granite, logits scaled": ("granite", {"logits_scaling": 8.0}),
    "granite, other factors": (
        "granite",
        {"embedding_multiplier": 2.0, "residual_multiplier": 0.5, "attention_multiplier": 0.5},
    ),
    "laguna, windows": ("laguna", WINDOWS),
    "llama, dynamic rope": ("llama", {"rope_parameters": _rope("dynamic", factor=2.0)}),
    "llama, rope of Llama 3.1": (
        "llama",
        {"rope_parameters": _rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)},
    ),
    "llama, yarn": ("llama", {"rope_parameters": _rope("yarn", factor=4.0)}),
    "mellum, windows": ("mellum", WINDOWS),
    "mistral, no window": ("mistral", {"sliding_window": None}),
    "modernbert-decoder, no bias": ("modernbert-decoder", {"decoder_bias": False}),
    "phi3, no window": ("phi3", {"sliding_window": None}),
    "phi3, partial rotary (Phi-4-mini)": (
        "phi3",
        {"sliding_window": None,
         "rope_parameters": _rope("default", partial_rotary_factor=0.5)},
    ),
    "phi3, longrope": (
        "phi3",
        {"sliding_window": None, "original_max_position_embeddings": 192, "rope_parameters": _rope(
            "longrope", factor=4 / 3, original_max_position_embeddings=192,
            short_factor=[1.0, 1.1, 1.2, 1.3], long_factor=[1.0, 1.5, 2.0, 3.0],
        )},
    ),
    "qwen2, windows": ("qwen2", {"use_sliding_window": True, "max_window_layers": 1}),
    "qwen3, windows": ("qwen3", {"use_sliding_window": True, "max_window_layers": 1}),
}  # fmt: skip
# Families of which transformers itself cannot make a small model here.
UNBUILT = (
    "gemma3n",  # needs timm, for its images
    "gemma4_assistant",  # its default config is not valid; it reads another model's keys
    "gemma4_unified_assistant",
    "musicgen",  # the config of the family is not the one that its decoder takes
    "musicgen_melody",
)
MOST_LAYERS = 8


def tiny_config(name: str, **values: object) -> PretrainedConfig:
    """A config with small sizes, everything else as the family has it.

    It has as few layers as hold one of each type that the family's default has.

    Args:
        name: a family or a variant.
    """
    family, changed = VARIANTS.get(name, (name, {}))
    given = OTHERWISE.get(family, {}) | changed | values
    types = set(_layer_types(CONFIG_MAPPING[family]()))
    for config in _configs(family, given):
        if types <= set(_layer_types(config)):
            return config
    return config


def make_family(name: str, folder: Path, template: str = CHATML, **values: object) -> Path:
    """Write a random model of a family with the tiny tokenizer, as `tests.tiny.make_verifier`."""
    tokenizer = make_tokenizer(template)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(name, **values), dtype=torch.float32)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _configs(family: str, given: dict) -> Iterator[PretrainedConfig]:
    """Tiny configs of a family, each with a layer more than the one before."""
    config_class = CONFIG_MAPPING[family]
    default = config_class()  # of the real model's size
    parts = {name: getattr(default, name, None) for name in config_class.sub_configs}
    for layers in range(SIZES["num_hidden_layers"], MOST_LAYERS + 1):
        small = _sizes(default, layers)
        for name, part in parts.items():
            if isinstance(part, PretrainedConfig):
                small[name] = _sizes(part, layers) | OTHERWISE.get(part.model_type, {})
        yield config_class(**small | given)
        if "layer_types" in given:
            return


def _layer_types(config: PretrainedConfig) -> list[str]:
    return getattr(config.get_text_config(decoder=True), "layer_types", None) or []


def _sizes(config: PretrainedConfig, layers: int) -> dict[str, object]:
    values = config.to_dict()
    return {
        name: size
        for name, size in (SIZES | {"num_hidden_layers": layers}).items()
        if name in values and not isinstance(values[name], bool | list | dict)
    }
