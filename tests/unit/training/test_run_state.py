"""Run states are read as they were written."""

import pytest
import torch

from eagle.draft.draft import Draft
from eagle.errors import InputError
from eagle.training.initialization import initialize_random
from eagle.training.run_state import RunState


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


def test_a_damaged_state_is_skipped_with_a_message(draft, tmp_path, capsys):
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
    RunState(10).save(tmp_path, draft, optimizer)  # the damaged one is not one of those kept
    assert not states[-1].exists()
    assert states[0].exists()


def test_a_full_disk_leaves_earlier_states_and_says_what_is_needed(draft, tmp_path, monkeypatch):
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
