"""The draft's shape, its attention over packed documents, and its config's fit."""

import copy
import json

import pytest
import torch
from transformers import AutoConfig, GemmaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from eagle.draft.draft import Draft, attend_within_documents, draft_config
from eagle.errors import InputError
from eagle.training.initialization import initialize_random
from tests.conftest import ROOT
from tests.families import tiny_config


@pytest.fixture
def config(tiny_verifier):
    return draft_config(None, AutoConfig.from_pretrained(tiny_verifier))


def pairs(config, length: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    shape = (length, config.hidden_size)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


def test_the_weights_have_the_official_names_and_no_norm_at_the_ends(config):
    shapes = {name: tuple(tensor.shape) for name, tensor in Draft(config).state_dict().items()}
    layer = "layers.0."
    assert shapes == {
        "fc.weight": (32, 64),
        layer + "self_attn.q_proj.weight": (32, 32),
        layer + "self_attn.k_proj.weight": (16, 32),
        layer + "self_attn.v_proj.weight": (16, 32),
        layer + "self_attn.o_proj.weight": (32, 32),
        layer + "mlp.gate_proj.weight": (48, 32),
        layer + "mlp.up_proj.weight": (48, 32),
        layer + "mlp.down_proj.weight": (32, 48),
        layer + "post_attention_layernorm.weight": (32,),
    }


@pytest.mark.parametrize("biases", [False, True])
def test_it_is_transformers_llama_layer_without_the_input_norm(config, biases):
    config.qkv_bias = config.attention_bias = biases
    draft = Draft(config)
    initialize_random(draft, 0)
    config._attn_implementation = "sdpa"
    layer = LlamaDecoderLayer(config, 0)
    if biases:
        layer.self_attn.o_proj.bias.data.zero_()
        for name in ("q_proj", "k_proj", "v_proj"):
            getattr(draft.layers[0].self_attn, name).bias.data.normal_()
    layer.load_state_dict(draft.layers[0].state_dict(), strict=False)
    layer.input_layernorm = torch.nn.Identity()
    features, embeddings = pairs(config, 9)
    positions = torch.arange(9)
    hidden = draft.fc(torch.cat([embeddings, features], -1))[None]
    rotary = draft.rotary(hidden, positions[None])
    expected = layer(hidden, position_embeddings=rotary, attention_mask=None)
    attend = attend_within_documents([9], "sdpa")
    actual = draft(features, embeddings, positions, attend)
    torch.testing.assert_close(actual, expected[0], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_packed_documents_are_the_documents_alone(config, backend):
    draft = Draft(config)
    initialize_random(draft, 0)
    lengths = [5, 1, 12]
    alone = []
    inputs = [pairs(config, length, seed) for seed, length in enumerate(lengths)]
    for (features, embeddings), length in zip(inputs, lengths, strict=True):
        attend = attend_within_documents([length], "eager")
        alone.append(draft(features, embeddings, torch.arange(length), attend))
    packed = draft(
        torch.cat([features for features, _ in inputs]),
        torch.cat([embeddings for _, embeddings in inputs]),
        torch.cat([torch.arange(length) for length in lengths]),
        attend_within_documents(lengths, backend),
    )
    torch.testing.assert_close(packed, torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_the_config_takes_from_the_verifier_what_the_file_leaves_out(tiny_verifier, tmp_path):
    verifier = AutoConfig.from_pretrained(tiny_verifier)
    tutorial = json.loads((ROOT / "resources/eagle_config.json").read_text())
    path = tmp_path / "config.json"
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4}
    path.write_text(json.dumps(tutorial | heads | {"hidden_size": 32, "intermediate_size": 80}))
    config = draft_config(path, verifier)
    assert config.vocab_size == verifier.vocab_size
    assert config.max_position_embeddings == 256
    assert config.rope_parameters["rope_theta"] == 500.0
    assert (config.num_hidden_layers, config.intermediate_size, config.bias) == (1, 80, False)
    stated = {"hidden_size": 32, "num_attention_heads": 4, "rope_theta": 7.0, "vocab_size": 9}
    path.write_text(json.dumps(stated))
    with pytest.raises(InputError, match="vocab_size is 9, the verifier's is"):
        draft_config(path, verifier)
    del stated["vocab_size"]
    path.write_text(json.dumps(stated))
    with pytest.raises(
        InputError, match="rope is .*7.0.*for this verifier has .*500.0.*Leave rope"
    ):
        draft_config(path, verifier)
    path.write_text(json.dumps(stated | {"rope_theta": 500}))
    assert draft_config(path, verifier).rope_parameters == verifier.rope_parameters


def test_a_config_of_another_width_or_form_is_refused(tiny_verifier, tmp_path):
    verifier = AutoConfig.from_pretrained(tiny_verifier)
    with pytest.raises(InputError, match="hidden_size is 4096, the verifier's is 32"):
        draft_config(ROOT / "resources/eagle_config.json", verifier)
    path = tmp_path / "config.json"
    path.write_text("[]")
    with pytest.raises(InputError, match="not a Llama config"):
        draft_config(path, verifier)
    path.write_text('{"hidden_size": 32, "rope_theta": 500, "partial_rotary_factor": 0.25}')
    with pytest.raises(InputError, match=r"rope is .*partial_rotary_factor.*Leave rope out"):
        draft_config(path, verifier)
    path.write_text('{"hidden_size": 32, "num_attention_heads": 5}')
    with pytest.raises(InputError, match=r"config.json: not a Llama config: .*not a multiple"):
        draft_config(path, verifier)
    path.write_text('{"hidden_size": 32, "hidden_act": "gelu"}')
    with pytest.raises(InputError, match="hidden_act is gelu; vLLM and SGLang serve"):
        draft_config(path, verifier)


def test_the_context_is_the_verifiers_whatever_the_file_states(tiny_verifier, tmp_path):
    path = tmp_path / "config.json"
    stated = {"hidden_size": 32, "num_attention_heads": 4, "max_position_embeddings": 64}
    path.write_text(json.dumps(stated))
    verifier = AutoConfig.from_pretrained(tiny_verifier)
    assert draft_config(path, verifier).max_position_embeddings == 256


def test_the_draft_is_llamas_whatever_the_verifier():
    assert draft_config(None, GemmaConfig()).hidden_act == "silu"


@pytest.mark.parametrize(
    ("family", "shape"),
    [
        ("llama", {"num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 48}),
        # by another name, and not stated at all
        ("falcon", {"num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 128}),
        ("gpt_neox", {"num_key_value_heads": 4, "head_dim": 8, "rms_norm_eps": 1e-6}),
        # latent attention: as many keys as queries
        ("deepseek_v3", {"num_key_value_heads": 4, "head_dim": 8}),
        # layers of two shapes: the last one that sees the whole text
        ("gemma4_text", {"num_key_value_heads": 2, "head_dim": 512}),
    ],
)
def test_the_shape_is_that_of_one_layer_of_the_verifier(family, shape):
    config = draft_config(None, tiny_config(family))
    assert {name: getattr(config, name) for name in shape} == shape
    assert (config.hidden_size, config.num_attention_heads) == (32, 4)
    Draft(config)


PLAIN = {"rope_type": "default", "rope_theta": 500.0}
LONG = {
    "rope_type": "longrope", "rope_theta": 500.0, "original_max_position_embeddings": 64,
    "short_factor": [1.0] * 4, "long_factor": [2.0] * 4,
}  # fmt: skip
PROPORTIONAL = PLAIN | {"rope_type": "proportional", "partial_rotary_factor": 0.25}
YARN = {
    "rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0, "beta_fast": 16.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip


@pytest.mark.parametrize(
    ("family", "rope", "expected"),
    [
        ("llama", PLAIN, PLAIN),
        ("llama", PLAIN | {"rope_type": "linear", "factor": 2.0}, None),
        ("llama", YARN, YARN),
        # read by engines in different ways
        ("llama", YARN | {"mscale": 1.0, "mscale_all_dim": 1.0, "truncate": False}, YARN),
        ("llama", YARN | {"attention_factor": 1.5}, YARN),
        ("llama", PLAIN | {"rope_type": "dynamic", "factor": 2.0}, PLAIN),
        ("phi3", LONG, PLAIN),
        # whole heads, whatever part the verifier rotates
        ("stablelm", PLAIN | {"partial_rotary_factor": 0.25}, PLAIN),
        ("glm", YARN | {"partial_rotary_factor": 0.5}, YARN),
        # the layers that see the whole text
        (
            "gemma3_text",
            {"full_attention": PLAIN, "sliding_attention": PLAIN | {"rope_theta": 9.0}},
            PLAIN,
        ),
        (
            "gemma4_text",
            {
                "full_attention": PROPORTIONAL,
                "sliding_attention": PLAIN | {"rope_theta": 9.0},
            },
            PLAIN,
        ),
    ],
)  # fmt: skip
def test_the_rope_is_the_verifiers_as_far_as_all_engines_read_it_alike(family, rope, expected):
    verifier = tiny_config(family, rope_parameters=copy.deepcopy(rope))
    assert draft_config(None, verifier).rope_parameters == (expected or rope)


def test_gemma_3_as_the_hub_has_it_takes_the_base_of_its_full_attention():
    old = {"rope_parameters": None, "rope_theta": 7e5, "rope_local_base_freq": 1e4}
    verifier = tiny_config("gemma3_text", **old)
    assert draft_config(None, verifier).rope_parameters["rope_theta"] == 7e5
