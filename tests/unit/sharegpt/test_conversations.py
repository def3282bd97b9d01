"""Conversations as files of the project hold them."""

import json

import pytest

from eagle.errors import InputError
from eagle.sharegpt.conversations import read_conversations, split


def test_validation_is_held_out_and_never_empty():
    rows = [{"id": i} for i in range(20)]
    train, validation = split(rows, 0.1)
    assert (len(train), len(validation)) == (18, 2)
    assert train + validation == rows
    assert len(split(rows[:2], 0.01)[1]) == 1
    with pytest.raises(InputError, match="at least two"):
        split(rows[:1], 0.1)


def test_prepared_rows_are_read_back_and_bad_ones_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    good = {"id": 0, "messages": [{"role": "user", "content": "a"},
                                  {"role": "assistant", "content": "b"}]}  # fmt: skip
    path.write_text(json.dumps(good) + "\n")
    assert read_conversations(path) == [good]
    path.write_text(json.dumps(good) + "\n" + json.dumps({"id": 1, "messages": []}) + "\n")
    with pytest.raises(InputError, match="conversation 2: no user turn"):
        read_conversations(path)
