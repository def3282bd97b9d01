"""Run states are read as they were written."""

import torch

from eagle.draft.draft import Draft
from eagle.training.initialization import initialize_random
from eagle.training.run_state import RunState, write_state


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
    write_state(tmp_path, state.content(draft, optimizer))
    assert RunState.resume(tmp_path, other, fresh) == state
    assert torch.equal(other.fc.weight, draft.fc.weight)
    moments = next(iter(fresh.state_dict()["state"].values()))
    assert moments["exp_avg"].abs().sum() > 0


def test_a_damaged_state_is_skipped_with_a_message(draft, tmp_path, capsys):
    optimizer = stepped(draft)
    for update in (8, 9, 10, 11):
        write_state(tmp_path, RunState(update).content(draft, optimizer))
    states = sorted(tmp_path.iterdir())
    assert [state.name[:15] for state in states] == ["state-000000010", "state-000000011"]
    content = bytearray(states[-1].read_bytes())
    content[len(content) // 2] ^= 1
    states[-1].write_bytes(content)
    assert RunState.resume(tmp_path, *another(draft)).update == 10
    assert f"{states[-1]}: its bytes changed" in capsys.readouterr().err
    # the damaged one is not one of those kept
    write_state(tmp_path, RunState(10).content(draft, optimizer))
    assert not states[-1].exists()
    assert states[0].exists()
