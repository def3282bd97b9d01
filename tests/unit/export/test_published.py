"""A published draft is read completely, with its own rope, or refused as what it is."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from eagle.draft.checkpoint import load_draft
from eagle.draft.draft import Draft, draft_config
from eagle.errors import InputError
from eagle.export.published import read_published
from eagle.training.initialization import initialize_random
from eagle.verifier.configuration import load_config
from tests.families import make_family
from tests.unit.export.conftest import exported


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
        ({"bias": False}, "weights and config.json do not fit"),
        ({"intermediate_size": 40}, "weights and config.json do not fit"),
        ({"hidden_size": "32"}, "config.json: not a Llama config: .*hidden_size"),
        ({"rope_scaling": 3}, "config.json: not a Llama config"),
        ({"partial_rotary_factor": 0.5}, "rope is .*0.5.*expected one that rotates whole heads"),
        ({"rope_scaling": {"rope_type": "su"}}, "rope is .*su.*expected .* of the types default"),
    ],
)
def test_a_published_draft_that_does_not_fit(biased, tiny_verifier, tmp_path, config, expected):
    folder = publish(tmp_path / "published", biased, tiny_verifier, True, **config)
    with pytest.raises(InputError, match=expected):
        read_published(folder, tiny_verifier, allow_pickle=False)


LINEAR = {"rope_type": "linear", "factor": 2.0}
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0}


@pytest.mark.parametrize(
    ("stated", "rope"),
    [
        ({}, {"rope_type": "default", "rope_theta": 10000.0}),
        ({"rope_theta": None, "rope_scaling": None}, {"rope_type": "default", "rope_theta": 1e4}),
        ({"rope_theta": 7.0}, {"rope_type": "default", "rope_theta": 7.0}),
        ({"rope_theta": 500.0}, None),
        ({"rope_scaling": LINEAR, "rope_theta": 500.0}, LINEAR | {"rope_theta": 500.0}),
        ({"rope_parameters": DYNAMIC | {"rope_theta": 9.0}}, DYNAMIC | {"rope_theta": 9.0}),
    ],
)
def test_a_published_draft_keeps_its_own_rope(
    biased, tiny_verifier, tmp_path, capsys, stated, rope
):
    folder = publish(tmp_path / "published", biased, tiny_verifier, True)
    file = folder / "config.json"
    fields = json.loads(file.read_text())
    del fields["rope_theta"], fields["rope_scaling"]
    file.write_text(json.dumps(fields | stated))
    draft = read_published(folder, tiny_verifier, allow_pickle=False)
    printed = capsys.readouterr().err
    if rope is None:  # the verifier's
        assert printed == ""
        return
    (line,) = printed.splitlines()
    assert f"warning: the draft's rope is {draft.config.rope_parameters}" in line
    verifier = load_config(tiny_verifier).rope_parameters
    assert f"the verifier's is {verifier}; the draft is measured with its own" in line
    assert draft.config.rope_parameters == rope
    exported(draft, tiny_verifier, "official", tmp_path / "official")
    again = load_draft(tmp_path / "official")
    assert again.config.rope_parameters == rope
    expected = LlamaRotaryEmbedding(LlamaConfig(head_dim=8, rope_parameters=rope))
    assert torch.equal(again.rotary.inv_freq, expected.inv_freq)


def test_a_draft_of_ours_for_a_verifier_with_partial_rotary_is_published_without_a_warning(
    tmp_path, capsys
):
    verifier = make_family("stablelm", tmp_path / "verifier")
    draft = Draft(draft_config(None, load_config(verifier)))
    exported(draft, verifier, "official", tmp_path / "official")
    capsys.readouterr()
    read_published(tmp_path / "official", verifier, allow_pickle=False)
    assert capsys.readouterr().err == ""


EAGLE3 = {"fc.weight": (32, 96), "midlayer.self_attn.q_proj.weight": (32, 64), "d2t": (16,)}


@pytest.mark.parametrize(
    ("config", "weights", "found"),
    [
        ({}, EAGLE3, r"an EAGLE-3 draft \(fc \[H, 3H\]\)"),
        ({}, {"fc.weight": (32, 64), "t2d": (300,)}, r"an EAGLE-3 draft \(t2d\)"),
        ({}, {"fc.weight": (32, 64), "layers.0.hidden_norm.weight": (32,)}, "an EAGLE-3 draft"),
        ({"architectures": ["LlamaForCausalLMEagle3"]}, {}, "an EAGLE-3 draft"),
        ({"draft_vocab_size": 100}, {}, "an EAGLE-3 draft"),
        ({"speculators_model_type": "eagle"}, {}, r"the library speculators \(eagle\)"),
        ({"speculators_config": {}, "architectures": None}, {}, "the library speculators"),
        ({"medusa_num_heads": 4}, {}, "Medusa heads"),
        ({"architectures": ["MedusaModel"]}, {}, "Medusa heads"),
        ({}, {"0.0.linear.weight": (32, 32), "0.1.weight": (300, 32)}, "Medusa heads"),
        ({"num_hidden_layers": 12}, {}, "a language model of 12 layers"),
        ({}, {"model.layers.0.mlp.up_proj.weight": (48, 32)}, r"another model \(model.layers"),
        ({}, {"fc.weight": (32, 64), "lm_head.weight": (300, 32)}, "a head of its own"),
    ],
)
def test_another_kind_of_draft_is_named(draft, tiny_verifier, tmp_path, config, weights, found):
    folder = publish(tmp_path / "published", draft, tiny_verifier, True, **config)
    if weights:
        tensors = {name: torch.zeros(shape) for name, shape in weights.items()}
        save_file(tensors, folder / "model.safetensors")
    with pytest.raises(
        InputError, match=rf"published: found .*{found}.*, expected an EAGLE-1 draft"
    ):
        read_published(folder, tiny_verifier, allow_pickle=False)
