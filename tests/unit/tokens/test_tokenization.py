"""The fast ways of tokenising against the template applied to one row after the other."""

import json
import random

import numpy as np
import pytest
import torch

from eagle.errors import InputError
from eagle.template.template import Encoded, encode, encode_many, render_many
from eagle.tokens import tokenization
from eagle.tokens.token_set import TokenSet
from eagle.tokens.tokenization import named_cuts, tokenize, tokenize_file
from eagle.tokens.tokenizer import load_tokenizer
from eagle.tracking import Progress
from tests.tiny import MARKED, make_messages, make_tokenizer, write_json_lines

ODD = [
    "",
    " edges\n",
    "Grüße 🙂 你好",
    "```\n{{ x }}\n```",
    "a<|im_end|>b",
    "\x00\x1b[0m",
    "\u2028",
]


def odd_messages(count: int) -> list[dict]:
    """Conversations of unusual texts between usual ones; some replies are empty."""
    generator = random.Random(0)
    rows = make_messages(count)
    for row in rows:
        for message in row["messages"]:
            if generator.random() < 0.4:
                message["content"] = generator.choice(ODD) + message["content"] * (
                    generator.random() < 0.7
                )
    return rows


def tokenized(rows: list[dict], maximum_length: int) -> tuple[TokenSet, dict]:
    with Progress("t", len(rows), "c") as progress:
        found = tokenize(rows, make_tokenizer(), MARKED, maximum_length, progress)
    assert progress.done == len(rows)
    return found


def one_by_one(rows: list[dict], maximum_length: int) -> list[Encoded]:
    """What transformers makes of each row by itself."""
    tokenizer = make_tokenizer()
    found = []
    for row in rows:
        encoded = tokenizer.apply_chat_template(
            row["messages"], chat_template=MARKED, return_dict=True,
            return_assistant_tokens_mask=True,
        )  # fmt: skip
        ids, mask = encoded["input_ids"], encoded["assistant_masks"]
        cut = max(0, len(ids) - maximum_length)
        found.append(Encoded(ids[:maximum_length], mask[:maximum_length], cut))
    return found


def test_many_at_once_are_what_the_template_applied_to_each_gives():
    rows = odd_messages(200)
    tokenizer = make_tokenizer()
    rendered = render_many(tokenizer, MARKED, [row["messages"] for row in rows])
    for (token_ids, mask), one in zip(
        encode_many(tokenizer, rendered), one_by_one(rows, 10**9), strict=True
    ):
        assert token_ids.tolist() == one.token_ids
        assert mask.tolist() == one.loss_mask


def test_what_a_trainer_left_in_the_tokenizers_file_cuts_and_fills_nothing(tmp_path):
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(10)
    tokenizer.backend_tokenizer.enable_padding(length=500, direction="left")
    tokenizer.save_pretrained(tmp_path)
    assert '"max_length":10' in (tmp_path / "tokenizer.json").read_text().replace(" ", "")
    (messages,) = (row["messages"] for row in make_messages(1))
    loaded = load_tokenizer(tmp_path)
    ((token_ids, _mask),) = encode_many(loaded, render_many(loaded, MARKED, [messages]))
    assert token_ids.tolist() == encode(make_tokenizer(), MARKED, messages, 10**9).token_ids


@pytest.mark.parametrize("maximum_length", [2, 20, 60, 10**6])
def test_documents_are_the_rows_that_have_something_to_learn(maximum_length):
    rows = odd_messages(100)
    expected = one_by_one(rows, maximum_length)
    learnt = [one for one in expected if any(one.loss_mask[1:])]
    if not learnt:
        with pytest.raises(InputError, match="none of 100 conversations has an assistant token"):
            tokenized(rows, maximum_length)
        return
    tokens, counts = tokenized(rows, maximum_length)
    assert tokens.token_ids.tolist() == [i for one in learnt for i in one.token_ids]
    assert tokens.loss_mask.tolist() == [m for one in learnt for m in one.loss_mask]
    assert tokens.bounds.diff().tolist() == [len(one.token_ids) for one in learnt]
    assert tokens.token_ids.dtype == torch.int32 and tokens.loss_mask.dtype == torch.uint8
    assert counts["documents"] == len(tokens) == 100 - counts["documents_without_reply"]
    assert counts["tokens"] == len(tokens.token_ids)
    assert counts["assistant_tokens"] == int(tokens.loss_mask.sum())
    assert counts["cut_tokens"] == sum(one.cut_tokens for one in expected)
    assert counts["cut_documents"] == sum(one.cut_tokens > 0 for one in expected)


def test_every_reply_is_whole_shortened_or_cut_off():
    rows = make_messages(100)
    replies = sum(message["role"] == "assistant" for row in rows for message in row["messages"])
    for maximum_length in (30, 55, 80):
        whole = 0
        for one in one_by_one(rows, maximum_length):
            ends = np.diff([*one.loss_mask, 0]) == -1
            whole += int(ends.sum()) - (one.cut_tokens > 0 and one.loss_mask[-1])
        _tokens, counts = tokenized(rows, maximum_length)
        assert counts["cut_replies"] > 0 < counts["shortened_replies"]
        # a reply that ends exactly at the limit is counted as shortened above, and is whole
        exact = sum(
            one.loss_mask[maximum_length - 1 : maximum_length + 1] == [1, 0]
            for one in one_by_one(rows, 10**9)
        )
        assert whole + exact + counts["cut_replies"] + counts["shortened_replies"] == replies


@pytest.mark.parametrize("threads", [1, 2])
def test_the_streamed_file_is_the_saved_set(tmp_path, monkeypatch, marked_verifier, threads):
    monkeypatch.setattr(tokenization, "BYTES_AT_ONCE", 3000)
    rows = odd_messages(80)
    rows = [row for row in rows if all(m["content"].strip() for m in row["messages"])]
    path = write_json_lines(tmp_path / "rows.jsonl", rows)
    path.write_text(path.read_text().replace("\n", "\n\n", 3))  # blank lines are passed over
    streamed, saved = tmp_path / "streamed.safetensors", tmp_path / "saved.safetensors"
    tokenizer = load_tokenizer(marked_verifier)
    counts, statistics = tokenize_file(
        path, streamed, tokenizer, MARKED, 60, threads, progress_seconds=10
    )
    tokens, expected = tokenized(rows, 60)
    tokens.save(saved)
    assert streamed.read_bytes() == saved.read_bytes()
    assert counts == expected
    for name in ("length", "masked_share"):
        documents = sum(bar["documents"] for bar in statistics[name]["histogram"])
        assert documents == counts["documents"]
    assert statistics["length"]["max"] == 60


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"{", "line 2: not valid JSON"),
        (b"[]", "line 2: found a JSON list, expected one JSON object a line"),
        (b'{"messages": "\xff"}', "line 2: not UTF-8"),
        (b'{"messages": []}', "line 2: no user turn with a reply"),
        (
            b'{"messages": [{"role": "alien", "content": "x"}]}',
            "line 2: unknown role 'alien'.*turn 0",
        ),
        (b'{"a": ' + b"[" * 10**5, "nested too deeply"),
    ],
)
def test_a_line_that_is_no_conversation_is_named(tmp_path, line, expected):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(json.dumps(make_messages(1)[0]).encode() + b"\n" + line + b"\n")
    with pytest.raises(InputError, match=expected):
        tokenize_file(path, tmp_path / "t", make_tokenizer(), MARKED, 60, 1, progress_seconds=10)
    assert [file.name for file in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_conversation_that_the_template_refuses_is_named(tmp_path):
    rows = make_messages(3)
    rows[1]["messages"].insert(0, {"role": "system", "content": "x"})
    path = write_json_lines(tmp_path / "rows.jsonl", rows)
    system = "messages[0]['role'] == 'system'"
    refuses = f"{{% if {system} %}}{{{{ raise_exception('No system') }}}}{{% endif %}}"
    with pytest.raises(InputError, match="rows.jsonl, line 2: .*No system; .*system_turns"):
        tokenize_file(
            path, tmp_path / "t", make_tokenizer(), refuses + MARKED, 60, 1, progress_seconds=10
        )


@pytest.mark.parametrize("end", ["", "  \n"])
def test_the_end_of_a_reply_that_was_cut_is_not_the_assistants(end):
    """Its text stays, the stop token behind it is the template's; other replies are as before."""
    whole = {"id": 1, "messages": [
        {"role": "user", "content": "why"}, {"role": "assistant", "content": "a red cat" + end},
        {"role": "user", "content": "how"}, {"role": "assistant", "content": "a blue mat"},
    ]}  # fmt: skip
    cut = json.loads(json.dumps(whole))
    cut["messages"][1]["finish_reason"] = "length"
    (complete, counts), (shorter, cut_counts) = (tokenized([row], 200) for row in (whole, cut))
    assert complete.token_ids.tolist() == shorter.token_ids.tolist()
    lost = complete.loss_mask.bool() & ~shorter.loss_mask.bool()
    assert make_tokenizer().decode(complete.token_ids[lost]) == end + "<|im_end|>"
    assert not (shorter.loss_mask.bool() & ~complete.loss_mask.bool()).any()
    assert (counts["unfinished_replies"], cut_counts["unfinished_replies"]) == (0, 1)
    assert named_cuts(cut_counts, 200) == "1 replies that were cut at a limit do not teach an end"


def test_the_stage_reads_the_mark_of_a_cut_reply(tmp_path):
    rows = make_messages(4)
    for message in rows[0]["messages"]:
        message["finish_reason"] = "length"  # of a prompt it says nothing
    path = write_json_lines(tmp_path / "rows.jsonl", rows)
    counts, _ = tokenize_file(
        path, tmp_path / "t.safetensors", make_tokenizer(), MARKED, 200, 1, progress_seconds=10
    )
    replies = len(rows[0]["messages"]) // 2
    assert counts["unfinished_replies"] == replies
    expected, _ = tokenized(rows, 200)
    assert TokenSet.load(tmp_path / "t.safetensors").loss_mask.equal(expected.loss_mask)
