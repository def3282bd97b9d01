"""Drafts are read as they were written."""

import pytest
import torch
from transformers import AutoConfig

from eagle.draft.checkpoint import load_draft, save_draft
from eagle.draft.draft import Draft, draft_config
from eagle.errors import InputError
from eagle.training.initialization import initialize_random


@pytest.fixture
def draft(tiny_verifier):
    draft = Draft(draft_config(None, AutoConfig.from_pretrained(tiny_verifier)))
    initialize_random(draft, 0)
    return draft


def test_a_draft_comes_back_bit_for_bit(draft, tmp_path):
    save_draft(draft, tmp_path / "best")
    again = load_draft(tmp_path / "best")
    assert again.config.rope_parameters == draft.config.rope_parameters
    for name, tensor in draft.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


def test_a_cut_off_or_foreign_draft_is_refused(draft, tmp_path):
    folder = tmp_path / "best"
    save_draft(draft, folder)
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-10])
    with pytest.raises(InputError, match=r"model\.safetensors: cannot be read"):
        load_draft(folder)
    weights.write_bytes(whole)
    config = folder / "config.json"
    config.write_text(
        config.read_text().replace('"intermediate_size": 48', '"intermediate_size": 40')
    )
    with pytest.raises(InputError, match=r"weights and config\.json do not fit"):
        load_draft(folder)
    with pytest.raises(InputError, match="no such file"):
        load_draft(tmp_path / "absent")


@pytest.mark.parametrize("number", [float("nan"), float("-inf")])
def test_a_draft_with_a_weight_that_is_not_finite_is_refused(draft, tmp_path, number):
    with torch.no_grad():
        draft.layers[0].mlp.up_proj.weight[2, 3] = number
    save_draft(draft, tmp_path / "best")
    with pytest.raises(InputError, match=r"layers\.0\.mlp\.up_proj\.weight .*not finite"):
        load_draft(tmp_path / "best")
