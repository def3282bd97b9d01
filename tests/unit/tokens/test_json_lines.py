"""A file of conversations as token sets, for training without the stages."""

import torch

from eagle.tokens.json_lines import tokenize_json_lines
from eagle.tokens.tokenization import tokenize
from eagle.tracking import Progress
from tests.tiny import CHATML, MARKED, make_messages, make_tokenizer


def test_the_last_five_percent_are_held_out_and_all_are_tokenized_alike(messages_file):
    tokenizer = make_tokenizer(MARKED)
    stop = [tokenizer.eos_token_id]
    train, validation, _ = tokenize_json_lines(messages_file, tokenizer, stop, 200, 10)
    rows = make_messages(40)  # those of the file
    for tokens, part in ((train, rows[:38]), (validation, rows[38:])):
        with Progress("tokenize", len(part), "conversations") as progress:
            expected, _ = tokenize(part, tokenizer, MARKED, 200, progress)
        assert torch.equal(tokens.token_ids, expected.token_ids)
        assert torch.equal(tokens.loss_mask, expected.loss_mask)


def test_the_hash_is_that_of_file_and_template(messages_file, tmp_path):
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(messages_file.read_bytes())
    longer = tmp_path / "longer.jsonl"
    longer.write_bytes(messages_file.read_bytes() * 2)
    hashes = [
        tokenize_json_lines(path, tokenizer, [tokenizer.eos_token_id], 200, 10)[2]
        for tokenizer, path in (
            (make_tokenizer(MARKED), messages_file),
            (make_tokenizer(MARKED), copy),
            (make_tokenizer(MARKED), longer),
            (make_tokenizer(CHATML), messages_file),  # another template has the same tokens
        )
    ]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3
