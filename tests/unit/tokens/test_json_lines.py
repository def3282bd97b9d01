"""A file of conversations as token sets, for training without the stages."""

import pytest
import torch

from eagle.errors import InputError
from eagle.tokens.json_lines import tokenize_json_lines
from eagle.tokens.tokenization import tokenize
from eagle.tracking import Progress
from tests.tiny import CHATML, MARKED, make_messages, make_tokenizer, write_json_lines

DAY = "2024-07-26"


def tokenized(tokenizer, path, length, day):
    return tokenize_json_lines(path, tokenizer, [tokenizer.eos_token_id], length, day, 10)


def test_the_last_five_percent_are_held_out_and_all_are_tokenized_alike(messages_file):
    tokenizer = make_tokenizer(MARKED)
    stop = [tokenizer.eos_token_id]
    train, validation, _, note = tokenize_json_lines(messages_file, tokenizer, stop, 200, DAY, 10)
    assert note == ""
    rows = make_messages(40)  # those of the file
    for tokens, part in ((train, rows[:38]), (validation, rows[38:])):
        with Progress("tokenize", len(part), "conversations") as progress:
            expected, _ = tokenize(part, tokenizer, MARKED, 200, progress)
        assert torch.equal(tokens.token_ids, expected.token_ids)
        assert torch.equal(tokens.loss_mask, expected.loss_mask)


def test_the_hash_is_that_of_the_tokens(messages_file, tmp_path):
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(messages_file.read_bytes())
    longer = tmp_path / "longer.jsonl"
    longer.write_bytes(messages_file.read_bytes() * 2)
    writes_date = "{{ strftime_now('%d') }}" + CHATML
    hashes = [
        tokenized(make_tokenizer(template), path, length, day).sha256
        for template, path, length, day in (
            (MARKED, messages_file, 200, DAY),
            (MARKED, copy, 200, "2025-01-31"),
            (CHATML, messages_file, 200, DAY),
            (MARKED, longer, 200, DAY),
            (MARKED, messages_file, 60, DAY),
            (writes_date, messages_file, 200, DAY),
            (writes_date, messages_file, 200, "2025-01-31"),
        )
    ]
    assert hashes[0] == hashes[1] == hashes[2]
    assert len(set(hashes)) == 5


def test_what_is_cut_left_out_and_not_read_is_said(tmp_path):
    rows = make_messages(40)
    rows[1]["tools"] = [{"name": "f"}]
    rows[2]["lang"] = "en"
    rows[3]["messages"][0]["content"] *= 20
    path = write_json_lines(tmp_path / "rows.jsonl", rows)
    train, validation, _, note = tokenized(make_tokenizer(MARKED), path, 120, DAY)
    assert len(train) + len(validation) == 38
    assert int(train.bounds.diff().max()) <= 120
    assert note.startswith("1 of 40 rows left out, 1 because: row with `tools` (conversation 2); ")
    assert "documents cut at 120 tokens, 1 left out, without a reply in 120 tokens; " in note
    assert note.endswith("fields that were not read: lang (1 rows)")


def test_where_all_are_too_long_the_message_says_so(tmp_path):
    rows = make_messages(4)
    for row in rows:
        row["messages"][0]["content"] *= 20
    path = write_json_lines(tmp_path / "rows.jsonl", rows)
    with pytest.raises(InputError, match="within 50 tokens: .* are longer: take data with shorter"):
        tokenized(make_tokenizer(MARKED), path, 50, DAY)
