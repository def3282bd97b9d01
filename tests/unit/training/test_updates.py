"""The order of updates."""

import itertools

import pytest

from eagle.errors import InputError
from eagle.training.updates import plan_updates


def test_every_document_comes_once_an_epoch_in_a_new_order(make_config):
    config = make_config(features="cache", epochs=3, seed=0)
    updates = plan_updates(config, 10, 4)
    assert [len(update.documents) for update in updates] == [4, 4, 2] * 3
    orders = [[d for u in updates if u.epoch == epoch for d in u.documents] for epoch in range(3)]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert updates == plan_updates(config, 10, 4)
    assert updates != plan_updates(make_config(features="cache", epochs=3, seed=1), 10, 4)


def test_a_replay_buffer_is_passed_over_before_the_next_is_filled(make_config):
    config = make_config(features="replay", epochs=5, replay_documents=4, replay_passes=2)
    updates = plan_updates(config, 10, 2)
    buffers = [buffer for buffer, _ in itertools.groupby(updates, key=lambda u: u.buffer)]
    # epochs 0 and 1 over three buffers, 2 and 3 over three drawn anew, 4 once more
    assert [len(buffer) for buffer in buffers] == [4, 4, 2] * 3
    assert set(buffers[:3]) != set(buffers[3:6])
    for epoch in range(5):
        seen = [d for update in updates if update.epoch == epoch for d in update.documents]
        assert sorted(seen) == list(range(10))
    assert all(set(update.documents) <= set(update.buffer) for update in updates)


def test_a_buffer_of_all_documents_has_the_order_of_the_cache(make_config):
    cached = make_config(features="cache", epochs=3)
    replayed = make_config(features="replay", epochs=3, replay_documents=10, replay_passes=3)
    orders = [[u.documents for u in plan_updates(config, 10, 4)] for config in (cached, replayed)]
    assert orders[0] == orders[1]


def test_a_buffer_smaller_than_an_update_is_refused(make_config):
    config = make_config(features="replay", replay_documents=3)
    with pytest.raises(InputError, match="--replay-documents = 3 is fewer than the 4 conv"):
        plan_updates(config, 10, 4)
