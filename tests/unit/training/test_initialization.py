"""First weights: drawn from the seed, or solved for."""

import json
import shutil

import pytest
import torch
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm

from eagle.draft.checkpoint import save_draft
from eagle.draft.draft import Draft, attend_within_documents, draft_config
from eagle.errors import InputError
from eagle.train import train
from eagle.training.build import new_draft
from eagle.training.initialization import (
    Pairs,
    choose_initialization,
    difference_from_last_layer,
    initialize_from_last_layer,
    initialize_least_squares,
    initialize_random,
)
from eagle.training.run_identity import run_parameters
from eagle.verifier.verifier import Verifier
from tests.families import make_family
from tests.tiny import MARKED


def test_random_weights_depend_on_the_seed_and_have_the_configs_deviation(draft):
    drawn = []
    for seed in (0, 0, 1):
        initialize_random(draft, seed)
        drawn.append(draft.fc.weight.clone())
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert abs(drawn[0].std().item() - draft.config.initializer_range) < 0.002


def test_least_squares_begins_at_the_best_linear_prediction(draft):
    width = draft.config.hidden_size
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(2 * width, width, generator=generator)
    embeddings = torch.randn(1000, width, generator=generator) / 20  # small beside features
    features = torch.randn(1000, width, generator=generator)
    targets = torch.cat([embeddings, features], dim=-1) @ truth
    initialize_random(draft, 0)
    parts = zip(*(t.split(300) for t in (embeddings, features, targets)), strict=True)
    initialize_least_squares(draft, (Pairs(*part) for part in parts))
    with torch.no_grad():
        attend = attend_within_documents([1000], "sdpa")
        predicted = draft(features, embeddings, torch.arange(1000), attend)
    assert (predicted - targets).pow(2).sum() < 1e-3 * targets.pow(2).sum()
    assert draft.layers[0].self_attn.q_proj.weight.abs().max() > 0


@pytest.mark.parametrize("biases", [False, True])
def test_the_last_layer_is_taken_in_the_features_basis(draft, verifier, biases):
    """From features, the draft computes the same queries and MLP gates as the verifier's layer from
    the residual stream."""
    layer, final = verifier.model.model.layers[-1], verifier.model.model.norm
    generator = torch.Generator().manual_seed(0)
    for norm in (layer.input_layernorm, layer.post_attention_layernorm, final):
        norm.weight.data.uniform_(0.5, 2.0, generator=generator)
    if biases:  # as Qwen2 has them
        draft.config.qkv_bias = True
        draft = Draft(draft.config)
        for name in ("q_proj", "k_proj", "v_proj"):
            projection = getattr(layer.self_attn, name)
            projection.bias = torch.nn.Parameter(torch.randn(projection.out_features))
    initialize_random(draft, 0)
    initialize_from_last_layer(draft, verifier)
    stream = 5 * torch.randn(9, draft.config.hidden_size, generator=generator)
    features = final(stream)
    ours = draft.layers[0]
    with torch.no_grad():
        for name in ("q_proj", "k_proj", "v_proj"):
            torch.testing.assert_close(
                getattr(ours.self_attn, name)(features),
                getattr(layer.self_attn, name)(layer.input_layernorm(stream)),
                atol=1e-4, rtol=1e-4,
            )  # fmt: skip
        # a draft's MLP reads a residual stream of features: its norm takes out their scale
        ours_in = ours.post_attention_layernorm(features)
        scale = features.pow(2).mean(-1, keepdim=True).sqrt()
        torch.testing.assert_close(
            ours.mlp.gate_proj(ours_in) * scale,
            layer.mlp.gate_proj(layer.post_attention_layernorm(stream)),
            atol=1e-4, rtol=1e-4,
        )  # fmt: skip


# What `auto` is, and what differs from Llama's layer where it is least_squares.
CHOICES = {
    ("llama", ()): None,
    ("mistral", ()): None,
    ("smollm3", ()): None,
    ("smollm3", (("num_hidden_layers", 4),)): "last layer computes",  # its fourth has no rotary
    ("gemma", ()): "last layer computes",  # multiplies by 1 + w
    ("granite", ()): "last layer computes",  # factors on the residuals and on the scores
    ("ernie4_5", ()): "last layer computes",  # rotates neighbours
    ("llama", (("hidden_act", "gelu"),)): "last layer computes",
    ("qwen2", ()): "self_attn.k_proj.bias, self_attn.q_proj.bias, self_attn.v_proj.bias",
    ("qwen3", ()): "self_attn.k_norm.weight, self_attn.q_norm.weight",
    ("qwen3_moe", ()): "mlp.down_proj.weight, mlp.experts",
    ("phi3", ()): "mlp.gate_up_proj.weight",
    ("olmo2", ()): "input_layernorm.weight, post_feedforward_layernorm.weight",
    ("stablelm", ()): "final norm.bias",
    ("falcon", ()): "final norm.weight",
    ("gemma4_text", ()): "layer_scalar",
}  # fmt: skip


@pytest.mark.parametrize(("family", "values"), CHOICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_auto_is_last_layer_where_the_layer_is_llamas(family, values, dtype, make_config, tmp_path):
    difference = CHOICES[family, values]
    make_family(family, tmp_path / "verifier", **dict(values))
    verifier = Verifier.load(tmp_path / "verifier", dtype, torch.device("cpu"))
    config, draft = new_draft(make_config(initialization="auto"), verifier)
    if difference is None:
        assert config.initialization == "last_layer"
        assert new_draft(make_config(initialization="last_layer"), verifier)[0] == config
        return
    assert config.initialization == "least_squares"
    with pytest.raises(InputError, match=rf"= last_layer .*{difference}.*; choose auto or least"):
        new_draft(make_config(initialization="last_layer"), verifier)
    for asked in ("random", "least_squares"):
        assert choose_initialization(asked, draft, verifier) == (asked, "")


def test_a_final_norm_of_another_kind_is_seen(verifier):
    """With everything else Llama's."""
    draft = Draft(draft_config(None, verifier.config))
    assert difference_from_last_layer(draft, verifier) is None
    norm = GemmaRMSNorm(32)
    norm.weight.data.fill_(1.0)  # times two
    verifier.model.model.norm = norm
    assert "the verifier's final norm computes" in difference_from_last_layer(draft, verifier)


def test_a_draft_of_another_shape_is_seen(verifier):
    config = draft_config(None, verifier.config)
    config.intermediate_size = 40
    difference = difference_from_last_layer(Draft(config), verifier)
    assert "these differ: mlp.down_proj.weight, mlp.gate_proj.weight, mlp.up_proj" in difference


def test_a_draft_with_biases_takes_them_from_qwen2(tmp_path, make_config):
    verifier = Verifier.load(
        make_family("qwen2", tmp_path / "verifier"), torch.float32, torch.device("cpu")
    )
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
    file = tmp_path / "draft.json"
    file.write_text(json.dumps(shape | {"num_key_value_heads": 2, "qkv_bias": True}))
    config, draft = new_draft(make_config(initialization="auto", eagle_config_path=file), verifier)
    assert config.initialization == "last_layer"
    initialize_from_last_layer(draft, verifier)
    for name in ("q_proj", "k_proj", "v_proj"):
        theirs = getattr(verifier.layers[-1].self_attn, name).bias
        assert torch.equal(getattr(draft.layers[0].self_attn, name).bias, theirs)


def test_what_auto_is_is_decided_first_and_recorded(
    tmp_path, make_config, messages_file, capsys, monkeypatch
):
    """In the log, in the run's identity and in its provenance; nothing is computed before."""
    monkeypatch.setenv("EAGLE_CACHE", str(tmp_path / "cache"))
    given = {
        "verifier_model_path": make_family("qwen3", tmp_path / "verifier", MARKED),
        "dataset_path": messages_file, "cpdir": tmp_path / "cp", "features": "cache", "epochs": 1,
    }  # fmt: skip
    with pytest.raises(InputError, match=r"self_attn.k_norm.weight.*choose auto"):
        train(make_config(initialization="last_layer", **given))
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "cp").exists()
    folder = train(make_config(initialization="auto", **given))
    said = capsys.readouterr().err
    assert "initialization auto is least_squares: the verifier's last" in said
    assert "attn auto is sdpa: FlashAttention needs a GPU" in said
    assert "attention sdpa (torch's fused kernels, a document at a time)" in said
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["parameters"]["initialization"] == "least_squares"
    assert provenance["parameters"]["attn"] == "sdpa"
    # the same run by its other names: finished already
    named = {"initialization": "least_squares", "attn": "sdpa"}
    assert train(make_config(**named, **given)) == folder


def test_training_begins_from_an_existing_draft_of_the_same_shape(
    verifier, draft, make_config, tmp_path
):
    torch.nn.init.constant_(draft.fc.weight, 0.25)
    save_draft(draft, tmp_path / "first")
    config, begun = new_draft(make_config(initialization=f"path:{tmp_path / 'first'}"), verifier)
    for name, weight in begun.state_dict().items():
        assert torch.equal(weight, draft.state_dict()[name]), name
    # the folder's name is no part of the run's, so that a copy elsewhere is the same beginning
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    other, _ = new_draft(make_config(initialization=f"path:{tmp_path / 'second'}"), verifier)
    assert run_parameters(config, 1) == run_parameters(other, 1)
    wide = tmp_path / "wide.json"
    wide.write_text(json.dumps(draft.config.to_dict() | {"intermediate_size": 64}))
    changed = make_config(initialization=f"path:{tmp_path / 'first'}", eagle_config_path=wide)
    with pytest.raises(
        InputError, match="intermediate_size is 48 there, the draft to train has 64"
    ):
        new_draft(changed, verifier)
    with pytest.raises(InputError, match="absent/config.json: there is no such file"):
        new_draft(make_config(initialization=f"path:{tmp_path / 'absent'}"), verifier)
