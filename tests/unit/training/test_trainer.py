"""A training run in this process."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from eagle.errors import InputError
from eagle.tracking import NullTracker
from eagle.training.build import build_trainer, new_draft
from eagle.training.determinism import deterministic
from eagle.training.trainer import Trainer
from tests.conftest import on_both_devices


@pytest.fixture
def train(verifier, tokens, make_config, tmp_path):
    """Train on a few tiny documents; returns the finished trainer."""

    def _train(ahead: bool = False, **values) -> Trainer:
        config = make_config(
            epochs=4, features="replay", replay_documents=6, replay_passes=2, micro_batch_size=2,
            gradient_accumulation_steps=2, mask_alignment="decoding",
        ).model_copy(update=values)  # fmt: skip
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        trainer = build_trainer(
            *new_draft(config, verifier), verifier, "hash", tokens, tokens, folder,
            NullTracker(),
        )  # fmt: skip
        trainer.micro_steps.ahead = ahead
        assert trainer.run()
        return trainer

    return _train


def test_batches_made_ahead_in_a_thread_are_the_same(train):
    """As on a GPU, where making them takes no time from training; buffers change in between."""
    plain, ahead = train(ahead=False), train(ahead=True)
    losses = [[row["loss"] for row in trainer.state.history] for trainer in (plain, ahead)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == len(plain.updates) == 4 * 2 * 2
    assert not ahead.micro_steps.pending  # every batch was used


@on_both_devices
@pytest.mark.parametrize(("minutes", "kept"), [(0, [15, 16]), (60, [16])])
def test_states_are_written_at_the_later_of_two_bounds(train, minutes, kept):
    trainer = train(save=1, save_minutes=minutes)
    states = sorted(trainer.run_folder.glob("state-*"))
    assert [int(path.name.split("-")[1]) for path in states] == kept


def test_a_full_disk_ends_training_at_the_next_update(train, tmp_path, largest_file):
    with (
        largest_file(20_000),
        pytest.raises(InputError, match="the state after update 2 .* cannot"),
    ):
        train(save=2)
    assert list(tmp_path.glob("*/*")) == []


def test_a_loss_that_is_not_finite_ends_the_training(train):
    """No learning rate that the config allows brings so small a draft to it."""
    with pytest.raises(InputError, match="update .*: the loss is .*; the draft is lost"):
        train(learning_rate=1e30)


# What makes the host wait for a GPU: a number read, a size that the numbers decide, a copy back.
HOST_READS = {
    torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero, torch.ops.aten.is_nonzero,
    torch.ops.aten.equal, torch.ops.aten.masked_select, torch.ops.aten.repeat_interleave,
    torch.ops.aten.unique_dim, torch.ops.aten._unique2, torch.ops.aten.bincount,
    torch.ops.aten.index.Tensor,
}  # fmt: skip


class HostReads(TorchDispatchMode):
    """Notes such operations in this thread; an index is one where it is a mask."""

    def __init__(self):
        super().__init__()
        self.found, self.seen = [], 0

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        self.seen += 1
        masks = function == torch.ops.aten.index.Tensor and any(
            index is not None and index.dtype == torch.bool for index in arguments[1]
        )
        if masks or {function, function.overloadpacket} & (
            HOST_READS - {torch.ops.aten.index.Tensor}
        ):
            self.found.append(str(function))
        return function(*arguments, **(named or {}))


@pytest.mark.parametrize("form", ["value", "norm"])
def test_an_update_reads_nothing_from_the_device(train, form, monkeypatch):
    """Whole updates with rollouts in bfloat16."""
    reads = HostReads()
    plain = Trainer._update

    def update(trainer, number):
        # on a GPU a thread makes them, during the update before
        batches = list(trainer.micro_steps.batches(number))
        monkeypatch.setattr(trainer.micro_steps, "batches", lambda _: batches)
        with reads:
            losses = plain(trainer, number)
        monkeypatch.undo()
        monkeypatch.setattr(Trainer, "_update", update)
        return losses

    monkeypatch.setattr(Trainer, "_update", update)
    train(
        ahead=False, grad_clip_form=form, rollout_steps=2, mixed_precision="bf16", epochs=1,
        features="cache",
    )  # fmt: skip
    assert reads.seen > 100
    assert reads.found == []


@on_both_devices
def test_deterministic_runs_have_the_same_weights_and_on_a_cpu_the_usual_ones(train, device):
    with deterministic(True):
        runs = [train(), train()]
    if device.type == "cpu":
        runs.append(train())
    first, *others = [list(run.draft.parameters()) for run in runs]
    for other in others:
        assert all(torch.equal(one, another) for one, another in zip(first, other, strict=True))


def test_an_automatic_softmax_is_whole_on_a_gpu_and_small_on_a_cpu(make_config, verifier, capsys):
    config, _ = new_draft(make_config(softmax_vocabulary="auto"), verifier)
    cpu = verifier.head.device.type == "cpu"
    assert config.softmax_vocabulary == (8192 if cpu else None)
    size = "8,192 tokens: on cpu" if cpu else "the full vocabulary: on cuda"
    assert f"train: softmax_vocabulary auto is {size}" in capsys.readouterr().err
    assert new_draft(make_config(softmax_vocabulary=50), verifier)[0].softmax_vocabulary == 50
