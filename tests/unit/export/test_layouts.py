"""Each layout has the trained weights; a published draft is read completely or refused."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, LlamaConfig

from eagle.draft.checkpoint import load_draft
from eagle.draft.draft import Draft, draft_config
from eagle.errors import InputError
from eagle.export.layouts import ARCHITECTURES, export
from eagle.export.published import read_published
from eagle.training.initialization import initialize_random
from tests.tiny import make_verifier


@pytest.fixture
def draft(tiny_verifier):
    draft = Draft(draft_config(None, AutoConfig.from_pretrained(tiny_verifier)))
    initialize_random(draft, 0)
    return draft


def exported(draft, verifier, layout, folder) -> tuple[dict, dict]:
    folder.mkdir()
    export(draft, verifier, layout, folder)
    config = json.loads((folder / "config.json").read_text())
    return load_file(folder / "model.safetensors"), config


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


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({"hidden_size": 48}, "the draft's hidden_size is 32, the verifier's is 48"),
        ({"vocab_size": 320}, "the draft's vocab_size is 300, the verifier's is 320"),
        ({"rope_parameters": LLAMA3}, "the draft's rope_parameters is .*500.0.*is .*llama3"),
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
    with pytest.raises(InputError, match="model.safetensors: cannot be read.*get the model again"):
        export(draft, tmp_path / "verifier", "official", tmp_path)


def publish(folder: Path, draft: Draft, verifier: Path, safe: bool = False, **config) -> Path:
    """Write a draft as the official repositories do: a pickle, and a config without "bias"."""
    folder.mkdir()
    fields = {"architectures", "hidden_size", "intermediate_size", "num_attention_heads",
              "num_key_value_heads", "num_hidden_layers", "rms_norm_eps"}  # fmt: skip
    stated = {name: getattr(draft.config, name) for name in fields}
    stated |= {"rope_theta": 500.0, "rope_scaling": None} | config
    (folder / "config.json").write_text(json.dumps(stated))
    embedding = load_file(verifier / "model.safetensors")["model.embed_tokens.weight"]
    weights = dict(draft.state_dict()) | {
        "embed_tokens.weight": embedding,
        "layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
    }
    if safe:
        save_file(weights, folder / "model.safetensors")
    else:
        torch.save(weights, folder / "pytorch_model.bin")
    return folder


@pytest.fixture
def biased(draft):
    draft.config.bias = True
    biased = Draft(draft.config)
    initialize_random(biased, 1)
    biased.fc.bias.data.normal_()
    return biased


@pytest.mark.parametrize("safe", [True, False])
def test_a_published_draft_is_read_with_its_bias(biased, tiny_verifier, tmp_path, safe):
    folder = publish(tmp_path / "published", biased, tiny_verifier, safe)
    draft = read_published(folder, tiny_verifier, allow_pickle=not safe)
    exported(draft, tiny_verifier, "official", tmp_path / "official")
    again = load_draft(tmp_path / "official")
    for name, tensor in biased.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    assert again.config.vocab_size == 300
    with pytest.raises(InputError, match="vLLM would drop it"):
        exported(draft, tiny_verifier, "vllm", tmp_path / "vllm")


def test_a_published_draft_for_qwen2_has_biases_in_its_attention(draft, tiny_verifier, tmp_path):
    draft.config.qkv_bias = True
    qwen2 = Draft(draft.config)
    initialize_random(qwen2, 1)
    biases = [f"layers.0.self_attn.{name}_proj.bias" for name in "qkv"]
    for name in biases:
        qwen2.get_parameter(name).data.normal_()
    published = publish(tmp_path / "published", qwen2, tiny_verifier, True, qkv_bias=True)
    draft = read_published(published, tiny_verifier, allow_pickle=False)
    expected = {  # "bias", "qkv_bias", "attention_bias", biases in the file
        "official": (False, True, False, biases),
        "vllm": (False, True, False, biases),
        "sglang": (False, True, True, ["fc.bias", *biases, "layers.0.self_attn.o_proj.bias"]),
    }
    for layout, (*fields, names) in expected.items():
        weights, config = exported(draft, tiny_verifier, layout, tmp_path / layout)
        assert [config[f] for f in ("bias", "qkv_bias", "attention_bias")] == fields
        assert sorted(name for name in weights if name.endswith("bias")) == sorted(names)
        for name, tensor in qwen2.state_dict().items():
            assert torch.equal(weights[name], tensor)
    assert not weights["layers.0.self_attn.o_proj.bias"].any()


def test_a_pickle_is_read_only_when_allowed(biased, tiny_verifier, tmp_path):
    folder = publish(tmp_path / "published", biased, tiny_verifier)
    with pytest.raises(InputError, match=r"no model.safetensors.*a pickle, allow it with --allow"):
        read_published(folder, tiny_verifier, allow_pickle=False)


class Trap:
    """A pickle that runs code when all of it is loaded."""

    def __init__(self, sprung: Path):
        self.sprung = sprung

    def __reduce__(self):
        return Path.touch, (self.sprung,)


def test_a_pickle_that_holds_code_or_is_cut_off_is_refused(biased, tiny_verifier, tmp_path):
    folder = publish(tmp_path / "published", biased, tiny_verifier)
    file = folder / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match="pytorch_model.bin: not a whole file of tensors"):
        read_published(folder, tiny_verifier, allow_pickle=True)
    for other in ([torch.ones(2)], {"fc.weight": "none"}):
        torch.save(other, file)
        with pytest.raises(InputError, match="pytorch_model.bin: .* it holds something else"):
            read_published(folder, tiny_verifier, allow_pickle=True)
    file.write_bytes(pickle.dumps(Trap(tmp_path / "sprung"), protocol=2))
    pickle.loads(file.read_bytes())
    assert (tmp_path / "sprung").exists()  # the trap works
    (tmp_path / "sprung").unlink()
    with pytest.raises(InputError, match="pytorch_model.bin: not a whole file of tensors"):
        read_published(folder, tiny_verifier, allow_pickle=True)
    assert not (tmp_path / "sprung").exists()
    (folder / "config.json").write_text("[]")
    with pytest.raises(InputError, match="config.json: expected a model's settings"):
        read_published(folder, tiny_verifier, allow_pickle=True)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"hidden_size": 64}, "the draft's hidden_size is 64, the verifier's is 32"),
        ({"vocab_size": 32000}, "the draft's vocab_size is 32000, the verifier's is 300"),
        ({"rope_theta": 1e4}, "the draft's rope_parameters is .*10000.*, the verifier's is .*500"),
        ({"bias": False}, "weights and config.json do not fit"),
        ({"intermediate_size": 40}, "weights and config.json do not fit"),
        ({"hidden_size": "32"}, "config.json: not a Llama config: .*hidden_size"),
        ({"rope_scaling": 3}, "config.json: not a Llama config"),
    ],
)
def test_a_published_draft_that_does_not_fit(biased, tiny_verifier, tmp_path, config, expected):
    folder = publish(tmp_path / "published", biased, tiny_verifier, True, **config)
    with pytest.raises(InputError, match=expected):
        read_published(folder, tiny_verifier, allow_pickle=False)
