"""Order and schedule of updates, and what is refused before the first."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig

from eagle.config import TrainConfig
from eagle.draft.draft import Draft, draft_config
from eagle.draft.vocabulary import full_vocabulary
from eagle.errors import InputError
from eagle.tokens.tokenization import tokenize
from eagle.tracking import ClearML, Progress
from eagle.training.batch import Split
from eagle.training.features import ReplayedFeatures
from eagle.training.initialization import initialize_random
from eagle.training.trainer import Trainer, schedule, updates_of
from eagle.verifier.verifier import Verifier
from tests.tiny import MARKED, make_messages, make_tokenizer


def test_every_document_comes_once_an_epoch_in_a_new_order():
    updates = updates_of(10, 3, 4, 0, buffer=10, passes=3)
    assert [len(update.documents) for update in updates] == [4, 4, 2] * 3
    orders = [[d for u in updates if u.epoch == epoch for d in u.documents] for epoch in range(3)]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert updates == updates_of(10, 3, 4, 0, buffer=10, passes=3)
    assert updates != updates_of(10, 3, 4, 1, buffer=10, passes=3)


def test_a_replay_buffer_is_passed_over_before_the_next_is_filled():
    updates = updates_of(10, 5, 2, 0, buffer=4, passes=2)
    fillings = [key for key, _ in itertools.groupby(updates, key=lambda update: update.buffer)]
    # epochs 0 and 1 over three buffers, 2 and 3 over three drawn anew, 4 once more
    assert [len(buffer) for buffer in fillings] == [4, 4, 2] * 3
    assert set(fillings[:3]) != set(fillings[3:6])
    for epoch in range(5):
        seen = [d for update in updates if update.epoch == epoch for d in update.documents]
        assert sorted(seen) == list(range(10))
    assert all(set(update.documents) <= set(update.buffer) for update in updates)


def test_the_schedule_rises_and_falls_in_a_line():
    factors = [schedule(update, 4, 12) for update in range(12)]
    assert factors[:4] == [0.2, 0.4, 0.6, 0.8]
    assert factors[4] == 1.0
    assert factors[-1] == pytest.approx(1 / 8)
    assert schedule(12, 4, 12) == 0
    assert schedule(0, 0, 5) == 1.0


@pytest.fixture
def train(tiny_verifier, tmp_path):
    """Train on a few tiny documents; gives the finished trainer."""
    verifier = Verifier.load(tiny_verifier, torch.float32, torch.device("cpu"))
    with Progress("tokenize", 12, "conversations") as progress:
        tokens, _ = tokenize(make_messages(12), make_tokenizer(), MARKED, 200, progress)
    vocabulary = full_vocabulary(verifier.head)

    def _train(ahead: bool = False, **values) -> Trainer:
        asked = TrainConfig(
            verifier_model_path="v", dataset_path="d", cpdir="c", mixed_precision="none",
            eagle_dtype="float32", epochs=4, features="replay", replay_documents=6,
            replay_passes=2, micro_batch_size=2, gradient_accumulation_steps=2, **values,
        )  # fmt: skip
        draft = Draft(draft_config(None, verifier.config))
        initialize_random(draft, 0)
        splits = [
            Split.make(tokens, ReplayedFeatures(tokens, verifier, vocabulary), "decoding", [2])
            for _ in range(2)
        ]
        folder = tmp_path / f"{ahead}"
        folder.mkdir()
        trainer = Trainer(
            asked, draft, verifier, *splits, vocabulary, vocabulary, folder, ClearML("", "", {})
        )
        trainer.ahead = ahead
        assert trainer.run()
        return trainer

    return _train


def test_batches_made_ahead_in_a_thread_are_the_same(train):
    """As on a GPU, where it takes time from no one; buffers of features change in between."""
    plain, ahead = train(ahead=False), train(ahead=True)
    losses = [[row["loss"] for row in trainer.state.history] for trainer in (plain, ahead)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == len(plain.updates) == 4 * 2 * 2
    assert not ahead.made  # every batch was used


def test_a_micro_step_that_cannot_fit_is_refused_with_the_numbers(tiny_verifier, monkeypatch):
    config = draft_config(None, AutoConfig.from_pretrained(tiny_verifier))
    planned = SimpleNamespace(
        updates=updates_of(2, 1, 2, 0, buffer=2, passes=1), lengths=[300, 700], world=1,
        micro_steps=1, draft=Draft(config), device=torch.device("cpu"),
        command=SimpleNamespace(rollout_steps=0, features="cache"),
    )  # fmt: skip
    Trainer._check_memory(planned)
    monkeypatch.setattr("eagle.training.trainer.free_memory", lambda _device: 1e6)
    with pytest.raises(InputError, match=r"of 1,000 tokens needs about .* GB and cpu has 0.0 GB"):
        Trainer._check_memory(planned)
