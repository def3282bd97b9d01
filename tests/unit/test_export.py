"""What each engine loads is what was trained, under the names it knows."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, LlamaConfig

from eagle.checkpoint import load_draft
from eagle.draft import Draft, draft_config
from eagle.errors import InputError
from eagle.export import ARCHITECTURES, export
from eagle.initialization import initialize_random


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
def test_every_layout_holds_the_weights_and_nothing_an_engine_refuses(
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
    sglang, _ = exported(draft, tiny_verifier, "sglang", tmp_path / "sglang")
    assert sglang["fc.bias"].shape == (32,)
    assert not sglang["fc.bias"].any()
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
