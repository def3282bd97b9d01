"""Drafts and run states come back as they went."""

import pytest
import torch
from transformers import AutoConfig

from eagle.draft.checkpoint import load_draft, save_draft
from eagle.draft.draft import Draft, draft_config
from eagle.errors import InputError
from eagle.training.initialization import initialize_random
from eagle.training.run_state import RunState


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


def stepped(draft) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(draft.parameters(), fused=True)
    draft.fc.weight.grad = torch.ones_like(draft.fc.weight)
    optimizer.step()
    return optimizer


def another(draft) -> tuple[Draft, torch.optim.Optimizer]:
    other = Draft(draft.config)
    initialize_random(other, 1)
    return other, torch.optim.AdamW(other.parameters(), fused=True)


def test_a_run_state_restores_weights_and_optimizer(draft, tmp_path):
    optimizer = stepped(draft)
    state = RunState(3, 1.5, 0.25, [{"update": 2, "loss": 1.0}], [])
    other, fresh = another(draft)
    assert RunState.resume(tmp_path, other, fresh) == RunState()
    state.save(tmp_path, draft, optimizer)
    assert RunState.resume(tmp_path, other, fresh) == state
    assert torch.equal(other.fc.weight, draft.fc.weight)
    moments = next(iter(fresh.state_dict()["state"].values()))
    assert moments["exp_avg"].abs().sum() > 0


def test_a_damaged_state_is_passed_over_and_said(draft, tmp_path, capsys):
    optimizer = stepped(draft)
    for update in (8, 9, 10, 11):
        RunState(update).save(tmp_path, draft, optimizer)
    states = sorted(tmp_path.iterdir())
    assert [state.name[:15] for state in states] == ["state-000000010", "state-000000011"]
    content = bytearray(states[-1].read_bytes())
    content[len(content) // 2] ^= 1
    states[-1].write_bytes(content)
    assert RunState.resume(tmp_path, *another(draft)).update == 10
    assert f"{states[-1]}: its bytes changed" in capsys.readouterr().err
    RunState(10).save(tmp_path, draft, optimizer)  # it is not counted among those kept
    assert not states[-1].exists()
    assert states[0].exists()


def test_a_full_disk_leaves_the_states_before_and_says_what_is_needed(draft, tmp_path, monkeypatch):
    optimizer = stepped(draft)
    RunState(4).save(tmp_path, draft, optimizer)
    real = torch.save

    def full(content, path):
        real(content, path)
        with open(path, "r+b") as file:
            file.truncate(100)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError, match=r"update 8 cannot .* needs \d+ MB .*state-000000004"):
        RunState(8).save(tmp_path, draft, optimizer)
    assert [path.name[:15] for path in tmp_path.iterdir()] == ["state-000000004"]
    assert RunState.resume(tmp_path, *another(draft)).update == 4
