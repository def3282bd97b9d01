"""Run states are read as they were written."""

import pandas as pd
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


def test_a_lost_best_draft_is_written_again_from_a_state_before_it(draft, tmp_path, capsys):
    optimizer = stepped(draft)
    rows = [{"update": 8, "validation_loss": 2.0}, {"update": 12, "validation_loss": 3.0}]
    for update in (8, 12):  # each is written before the validation after its update
        state = RunState(update, validations=[row for row in rows if row["update"] < update])
        write_state(tmp_path, state.content(draft, optimizer))
    assert RunState.resume(tmp_path, *another(draft)).update == 8
    said = capsys.readouterr().err
    assert "state-000000012" in said
    assert "the best draft is lost, and it was that of update 8" in said
    (tmp_path / "best").mkdir()
    assert RunState.resume(tmp_path, *another(draft)).update == 12
    (tmp_path / "best").rmdir()
    # the table of a run that has ended knows of a validation after the newest state
    pd.DataFrame([rows[0], {"update": 12, "validation_loss": 1.0}]).to_csv(
        tmp_path / "validations.csv", index=False
    )
    assert RunState.resume(tmp_path, *another(draft)).update == 12


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
    assert f"{states[-1]}: its SHA-256 begins with" in capsys.readouterr().err
    # the damaged one is not one of those kept
    write_state(tmp_path, RunState(10).content(draft, optimizer))
    assert not states[-1].exists()
    assert states[0].exists()
