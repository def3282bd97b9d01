"""What is written beside training is what was there when the writing began, or an error."""

import threading

import pytest
import torch

from eagle.errors import InputError
from eagle.training.background_writer import BackgroundWriter
from eagle.training.run_state import RunState, write_state
from tests.conftest import on_both_devices


@pytest.fixture
def optimizer(draft) -> torch.optim.Optimizer:
    return torch.optim.AdamW(draft.parameters(), fused=True)


@pytest.fixture
def writer(tmp_path, optimizer, device) -> BackgroundWriter:
    return BackgroundWriter(tmp_path, optimizer, device)


def step(draft, optimizer) -> None:
    draft.fc.weight.grad = torch.ones_like(draft.fc.weight)
    optimizer.step()


@on_both_devices
def test_training_goes_on_while_its_state_is_written(draft, optimizer, writer, tmp_path):
    """The writer is held until weights, moments, learning rate and history have changed."""
    step(draft, optimizer)
    state = RunState(1, history=[{"update": 0}])
    weight = draft.fc.weight.detach().clone()
    moment = optimizer.state[draft.fc.weight]["exp_avg"].clone()
    changed = threading.Event()

    def write(content: dict) -> None:
        assert changed.wait(60)
        write_state(tmp_path, content)

    with writer:
        writer.write("a state", state.content(draft, optimizer), write)
        optimizer.param_groups[0]["lr"] = 0.5
        step(draft, optimizer)
        state.history.append({"update": 1})
        state.update = 2
        changed.set()
    assert not torch.equal(draft.fc.weight, weight)
    assert RunState.resume(tmp_path, draft, optimizer) == RunState(1, history=[{"update": 0}])
    assert torch.equal(draft.fc.weight, weight)
    assert torch.equal(optimizer.state[draft.fc.weight]["exp_avg"], moment)
    assert optimizer.param_groups[0]["lr"] == 1e-3


def test_what_is_in_hand_is_finished_before_the_next_is_copied(draft, writer):
    """So that there is one copy in memory at a time."""
    may_end, written = threading.Event(), []

    def write(content: dict) -> None:
        assert may_end.wait(60)
        written.append(content["fc.weight"].sum().item())

    with writer:
        writer.write("one", draft.state_dict(), write)
        threading.Timer(0.1, may_end.set).start()
        writer.write("another", draft.state_dict(), lambda _content: written.append("another"))
    assert written == [draft.fc.weight.sum().item(), "another"]


def test_a_full_disk_is_said_once_and_earlier_states_stay(
    draft, optimizer, writer, tmp_path, largest_file
):
    step(draft, optimizer)
    write_state(tmp_path, RunState(4).content(draft, optimizer))
    said = r"^the state at 8 \(0 MB\) cannot be written: \S+/\.state\.partial: larger than .* goes "
    with largest_file(20_000):
        writer.write(
            "the state at 8", RunState(8).content(draft, optimizer),
            lambda content: write_state(tmp_path, content),
        )  # fmt: skip
        while not writer.in_hand.done():
            pass
        with pytest.raises(InputError, match=said + "on from state-000000004-"):
            writer.check()
        with pytest.raises(InputError, match=said):
            writer.write("the next", draft.state_dict(), pytest.fail)
    with pytest.raises(InputError, match=said), writer:
        pass
    assert [path.name[:15] for path in tmp_path.iterdir()] == ["state-000000004"]
    assert RunState.resume(tmp_path, draft, optimizer).update == 4
