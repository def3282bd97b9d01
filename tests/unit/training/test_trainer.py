"""A training run in this process."""

import pytest

from eagle.tracking import NullTracker
from eagle.training.build import build_trainer, new_draft
from eagle.training.trainer import Trainer


@pytest.fixture
def train(verifier, tokens, make_config, tmp_path):
    """Train on a few tiny documents; returns the finished trainer."""

    def _train(ahead: bool) -> Trainer:
        config = make_config(
            epochs=4, features="replay", replay_documents=6, replay_passes=2, micro_batch_size=2,
            gradient_accumulation_steps=2, mask_alignment="decoding",
        )  # fmt: skip
        folder = tmp_path / f"{ahead}"
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
