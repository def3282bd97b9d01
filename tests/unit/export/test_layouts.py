"""Each layout has the trained weights, and is the same draft in an engine."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig

from eagle.draft.checkpoint import load_draft
from eagle.draft.draft import Draft, attend_within_documents, draft_config
from eagle.errors import InputError
from eagle.export.layouts import ARCHITECTURES, export
from eagle.training.initialization import initialize_random
from eagle.verifier.configuration import load_config
from tests.families import VARIANTS, make_family
from tests.tiny import make_verifier
from tests.unit.export.conftest import exported
from tests.vllm_draft import predicted_features


@pytest.mark.parametrize("layout", ARCHITECTURES)
def test_every_layout_has_the_weights_and_nothing_that_an_engine_refuses(
    draft, tiny_verifier, tmp_path, layout
):
    weights, config = exported(draft, tiny_verifier, layout, tmp_path / layout)
    for name, tensor in draft.state_dict().items():
        assert torch.equal(weights[name], tensor)
    assert not any(part in name for name in weights for part in ("lm_head", "input_layernorm"))
    assert not any(name.startswith(("model.", "module.", "norm")) for name in weights)
    verifier = AutoConfig.from_pretrained(tiny_verifier)
    for name in ("vocab_size", "max_position_embeddings", "hidden_size", "rope_parameters"):
        assert config[name] == getattr(verifier, name)
    assert (config["rope_theta"], config["rope_scaling"]) == (500.0, None)
    assert config["architectures"] == [ARCHITECTURES[layout]]
    assert (config["num_hidden_layers"], config["tie_word_embeddings"]) == (1, False)
    assert LlamaConfig(**config).rope_parameters == verifier.rope_parameters


def test_the_layouts_differ_in_bias_and_embedding(draft, tiny_verifier, tmp_path):
    embedding = load_file(tiny_verifier / "model.safetensors")["model.embed_tokens.weight"]
    official, config = exported(draft, tiny_verifier, "official", tmp_path / "official")
    assert torch.equal(official["embed_tokens.weight"], embedding)
    assert ("fc.bias" in official, config["bias"]) == (False, False)
    vllm, _ = exported(draft, tiny_verifier, "vllm", tmp_path / "vllm")
    assert set(vllm) == set(draft.state_dict())
    sglang, config = exported(draft, tiny_verifier, "sglang", tmp_path / "sglang")
    assert sglang["fc.bias"].shape == (32,)
    assert not sglang["fc.bias"].any()
    # SGLang would give attention biases for either, and leave unset what no file holds
    assert (config["bias"], config["attention_bias"]) == (False, False)
    again = load_draft(tmp_path / "official")
    assert torch.equal(again.fc.weight, draft.fc.weight)


def test_a_bias_that_vllm_would_drop_is_refused(draft, tiny_verifier, tmp_path):
    draft.config.bias = True
    biased = Draft(draft.config)
    initialize_random(biased, 0)
    weights, config = exported(biased, tiny_verifier, "vllm", tmp_path / "zero")
    assert ("fc.bias" in weights, config["bias"]) == (False, False)
    biased.fc.bias.data[0] = 0.5
    (tmp_path / "vllm").mkdir()
    with pytest.raises(InputError, match=r"fc\.bias is not zero, and vLLM would drop it"):
        export(biased, tiny_verifier, "vllm", tmp_path / "vllm")
    weights, _ = exported(biased, tiny_verifier, "sglang", tmp_path / "sglang")
    assert weights["fc.bias"][0] == 0.5


LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
}  # fmt: skip


def test_scaled_rope_is_written_in_both_spellings(tmp_path):
    verifier = make_verifier(tmp_path / "verifier", rope_parameters=LLAMA3)
    draft = Draft(draft_config(None, AutoConfig.from_pretrained(verifier)))
    _, config = exported(draft, verifier, "vllm", tmp_path / "vllm")
    assert config["rope_parameters"] == LLAMA3
    assert config["rope_theta"] == 500000.0
    assert config["rope_scaling"] == {k: v for k, v in LLAMA3.items() if k != "rope_theta"}
    del config["rope_parameters"]  # what an older transformers reads
    assert LlamaConfig(**config).rope_parameters == LLAMA3


def test_the_official_layout_has_an_untied_verifiers_input_embedding_and_its_context(tmp_path):
    verifier = make_verifier(tmp_path / "verifier", tie_word_embeddings=False)
    weights = load_file(verifier / "model.safetensors")
    assert not torch.equal(weights["model.embed_tokens.weight"], weights["lm_head.weight"])
    config = draft_config(None, AutoConfig.from_pretrained(verifier))
    config.max_position_embeddings = 64  # as a draft's own config file may state it
    official, config = exported(Draft(config), verifier, "official", tmp_path / "official")
    assert torch.equal(official["embed_tokens.weight"], weights["model.embed_tokens.weight"])
    assert config["max_position_embeddings"] == 256


FAMILIES = ("gemma3_text", "stablelm", "glm", "gpt_neox", "falcon", "gpt_oss", "ministral3")


ROPES = [name for name in VARIANTS if "rop" in name or "yarn" in name or "rotary" in name]


@pytest.mark.parametrize("family", [*FAMILIES, *ROPES])
def test_an_engine_that_reads_config_json_predicts_the_same_features(family, tmp_path):
    verifier = make_family(family, tmp_path / "verifier")
    draft = Draft(draft_config(None, load_config(verifier).get_text_config(decoder=True)))
    initialize_random(draft, 0)
    for name in "qk":  # far from even attention, so that the rotary embedding matters
        getattr(draft.layers[0].self_attn, f"{name}_proj").weight.data *= 50
    exported(draft, verifier, "vllm", tmp_path / "vllm")
    generator = torch.Generator().manual_seed(0)
    features, embeddings = 10 * torch.randn(2, 12, 32, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        expected = draft.double()(
            features, embeddings, torch.arange(90, 102), attend_within_documents([12], "sdpa")
        )
    predicted = predicted_features(tmp_path / "vllm", features, embeddings, first_position=90)
    torch.testing.assert_close(predicted, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("family", "untied"),
    [("llama", True), ("falcon", False), ("gpt_neox", True), ("gemma3_text", False)],
)
@pytest.mark.parametrize("split", [False, True])
def test_the_embedding_is_the_models_own(family, untied, split, tmp_path):
    """Whatever it is called and wherever it lies; a stray file beside the model is not looked at,
    even if it is the first one by name."""
    verifier = make_family(family, tmp_path / "verifier", tie_word_embeddings=not untied)
    model = AutoModelForCausalLM.from_pretrained(verifier)
    embedding = model.get_input_embeddings().weight
    if split:
        (verifier / "model.safetensors").unlink()
        model.save_pretrained(verifier, max_shard_size="40KB")
        assert len(list(verifier.glob("model-*.safetensors"))) > 1
    stray = {"model.embed_tokens.weight": torch.ones(300, 32)}
    save_file(stray, verifier / "consolidated.safetensors")
    draft = Draft(draft_config(None, load_config(verifier)))
    official, _ = exported(draft, verifier, "official", tmp_path / "official")
    assert torch.equal(official["embed_tokens.weight"], embedding)


def test_a_model_with_an_adapter_is_refused(draft, tiny_verifier, tmp_path):
    verifier = shutil.copytree(tiny_verifier, tmp_path / "verifier")
    name = "base_model.model.model.embed_tokens.weight"
    save_file({name: torch.ones(300, 32)}, verifier / "adapter_model.safetensors")
    with pytest.raises(InputError, match=r"adapter_model.safetensors: an adapter .*merge it"):
        export(draft, verifier, "official", tmp_path)
    assert not (tmp_path / "config.json").exists()


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({"hidden_size": 48}, "the draft's hidden_size is 32, the verifier's is 48"),
        ({"vocab_size": 320}, "the draft's vocab_size is 300, the verifier's is 320"),
    ],
)
def test_a_draft_of_another_verifier_is_refused(draft, tmp_path, other, expected):
    verifier = make_verifier(tmp_path / "verifier", **other)
    with pytest.raises(InputError, match=expected):
        export(draft, verifier, "official", tmp_path)
    assert not (tmp_path / "config.json").exists()


def test_a_cut_off_verifier_is_refused(draft, tiny_verifier, tmp_path):
    shutil.copytree(tiny_verifier, tmp_path / "verifier")
    weights = tmp_path / "verifier/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(InputError, match="verifier: its weights cannot be read"):
        export(draft, tmp_path / "verifier", "official", tmp_path)
