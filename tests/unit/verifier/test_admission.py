"""What is admitted as a verifier, and what is refused with which message."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    FalconConfig,
    Gemma2Config,
    GptOssConfig,
    GraniteConfig,
    Llama4TextConfig,
    MambaConfig,
    Qwen2Config,
    Qwen3NextConfig,
    T5Config,
)

from eagle.errors import InputError
from eagle.verifier.admission import admit, admit_config
from eagle.verifier.configuration import context_of, load_config
from tests.families import tiny_config
from tests.tiny import make_tokenizer, make_verifier

SHAPE = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
    "eos_token_id": 2, "bos_token_id": None, "pad_token_id": None,
}  # fmt: skip
ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}


@pytest.fixture
def folder(tiny_verifier, tmp_path):
    """A verifier to be damaged."""
    shutil.copytree(tiny_verifier, tmp_path / "verifier")
    return tmp_path / "verifier"


@pytest.fixture(scope="module")
def untied(tmp_path_factory):
    return make_verifier(tmp_path_factory.mktemp("untied") / "verifier", tie_word_embeddings=False)


def make(config, folder):
    """A random model of any family, with the tiny tokenizer."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def set_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_tensors(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def test_a_llama_is_admitted_with_what_its_layers_keep(tiny_verifier):
    admitted = admit(tiny_verifier)
    assert admitted.attn == "sdpa"
    assert admitted.key_value_shapes == [((2, 8), (2, 8))] * 2


def test_no_weight_is_read(folder):
    """Headers are enough: a file whose numbers are all cut off is admitted."""
    path = folder / "model.safetensors"
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    content, size = path.read_bytes()[:header], path.stat().st_size
    path.write_bytes(content)
    with path.open("r+b") as file:
        file.truncate(size)  # a hole where the numbers were
    admit(folder)


def test_a_missing_head_is_named(untied, tmp_path):
    shutil.copytree(untied, tmp_path / "verifier")
    change_tensors(tmp_path / "verifier", lambda tensors: tensors.pop("lm_head.weight"))
    with pytest.raises(InputError, match=r"tensor lm_head.weight is missing .*tie_word_embeddings"):
        admit(tmp_path / "verifier")


def test_a_tied_head_is_not_missed(folder):
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    admit(folder)


def test_an_unexpected_tensor_is_named(folder):
    change_tensors(folder, lambda tensors: tensors.update(v_head=torch.zeros(1, 32)))
    with pytest.raises(InputError, match="tensor v_head belongs to no part"):
        admit(folder)


def test_another_vocabulary_is_named_with_both_shapes(folder):
    set_config(folder, vocab_size=298)
    with pytest.raises(InputError, match=r"embed_tokens.weight is \[300, 32\] .* \[298, 32\]"):
        admit(folder)


@pytest.mark.parametrize("beside", [True, False])
def test_an_adapter_is_no_model(folder, beside):
    save_file({"lora_A": torch.zeros(2, 32)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text("{}")
    if not beside:
        (folder / "config.json").unlink()
        (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="adapter.*merge"):
        admit(folder)


def test_shards_without_their_index_are_refused(folder):
    path = folder / "model.safetensors"
    shutil.copy(path, folder / "model-00001-of-00002.safetensors")
    path.rename(folder / "model-00002-of-00002.safetensors")
    with pytest.raises(InputError, match=r"2 files of weights .* without model.safetensors.index"):
        admit(folder)


@pytest.mark.parametrize("method", ["awq", "gptq", "bitsandbytes", "fp8", "compressed-tensors"])
def test_quantised_weights_are_named_with_their_method(folder, method):
    set_config(folder, quantization_config={"quant_method": method, "bits": 4})
    with pytest.raises(InputError, match=f"quantised by {method}"):
        admit(folder)


def test_code_of_a_checkpoint_is_not_run(folder):
    set_config(folder, model_type="theirs", auto_map={"AutoConfig": "theirs.Config"})
    (folder / "theirs.py").write_text("raise SystemExit('ran')")
    with pytest.raises(InputError, match="config.json: cannot be loaded"):
        admit(folder)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Gemma2Config(**SHAPE, head_dim=8, sliding_window=64), "final_logit_softcapping = 30"),
        (GraniteConfig(**SHAPE, **ROPE, logits_scaling=8.0), "logits_scaling = 8"),
        (MambaConfig(vocab_size=300, hidden_size=32, num_hidden_layers=2), "linear_attention"),
        (
            Qwen3NextConfig(**SHAPE | {"num_hidden_layers": 4}, head_dim=8, num_experts=2,
                            linear_num_key_heads=2, linear_num_value_heads=2),
            "layer_types holds linear_attention",
        ),
        (
            Llama4TextConfig(**SHAPE, head_dim=8, num_local_experts=2, intermediate_size_mlp=48),
            "layer_types holds chunked_attention",
        ),
        (T5Config(d_model=32, num_layers=1, vocab_size=300), "an encoder-decoder"),
    ],
    ids=lambda value: getattr(value, "model_type", "message"),
)  # fmt: skip
def test_what_a_draft_cannot_follow_is_refused_by_the_config_alone(config, message, tmp_path):
    config.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=message):
        admit_config(tmp_path, "hub:org/model")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("doge, experts", "DogeCDMoE. give a token something else when others are read with it"),
        ("falcon, ALiBi", "no rotary embedding is stated .alibi is true"),
        ("gemma3_text, bidirectional", "its tokens see the tokens after them"),
        ("gemma4_text, shared keys", r"layer 2 does not keep keys .* of its own .*\(and 1 more"),
        ("hrm_text", "cannot be followed from a prompt to a tree .* no list of 16 layers"),
        ("jetmoe", "its code goes on by what the numbers are"),
        ("modernbert-decoder", "its head and its decoder are not apart"),
    ],
)
def test_what_the_models_code_does_decides(name, message, tmp_path):
    tiny_config(name).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=message):
        admit_config(tmp_path, "hub:org/model")


def test_rotary_frequencies_that_the_length_decides_are_followed(tmp_path):
    tiny_config("llama, dynamic rope").save_pretrained(tmp_path)
    admit_config(tmp_path, "hub:org/model")


def test_other_kernels_are_not_followed_and_stay(tiny_verifier):
    assert admit(tiny_verifier, "flex_attention").attn == "flex_attention"


def test_a_factor_of_one_on_the_logits_is_none(tmp_path):
    GraniteConfig(**SHAPE, **ROPE, logits_scaling=1.0).save_pretrained(tmp_path)
    admit_config(tmp_path, "hub:org/model")


def test_latent_attention_keeps_what_it_is_made_of(tmp_path):
    config = DeepseekV3Config(
        **SHAPE | {"num_key_value_heads": 4}, kv_lora_rank=12, q_lora_rank=8, qk_rope_head_dim=8,
        qk_nope_head_dim=8, v_head_dim=8, n_routed_experts=4, n_group=2, topk_group=1,
        num_experts_per_tok=2, moe_intermediate_size=16,
    )  # fmt: skip
    assert admit(make(config, tmp_path)).key_value_shapes == [((1, 12), (1, 8))] * 2


def test_a_model_without_sdpa_runs_with_eager(tmp_path):
    config = GptOssConfig(**SHAPE, head_dim=8, num_local_experts=4, num_experts_per_tok=2)
    assert admit(make(config, tmp_path)).attn == "eager"


def test_other_names_for_the_modules_are_no_obstacle(tmp_path):
    config = FalconConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, alibi=False,
        eos_token_id=2, bos_token_id=None,
    )  # fmt: skip
    assert admit(make(config, tmp_path)).key_value_shapes == [((1, 8), (1, 8))] * 2


@pytest.mark.parametrize("window", [0, None, 4])
def test_a_window_of_nothing_is_none(window, tmp_path):
    admit(make(Qwen2Config(**SHAPE, use_sliding_window=False, sliding_window=window), tmp_path))


def test_the_context_ends_where_the_rotary_frequencies_change(folder):
    assert context_of(load_config(folder)) == 256
    rope = {"rope_type": "longrope", "rope_theta": 500.0, "factor": 4.0,
            "original_max_position_embeddings": 64, "short_factor": [1.0] * 4,
            "long_factor": [2.0] * 4}  # fmt: skip
    set_config(folder, rope_parameters=rope)
    assert context_of(load_config(folder)) == 64
