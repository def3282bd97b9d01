"""ShareGPT rows become regular conversations, or are rejected with a reason, or end the run."""

import json

import pytest

from eagle.config import ShareGptSelection
from eagle.errors import InputError
from eagle.sharegpt import prepare, read_conversations, read_system_prompt, split, statistics
from tests.tiny import make_conversations

ALL = ShareGptSelection(frac=1.0)


def turns(*speakers: str) -> list[dict]:
    return [{"from": speaker, "value": f"text {i}"} for i, speaker in enumerate(speakers)]


def source(tmp_path, *conversations: list[dict]) -> str:
    path = tmp_path / "data.json"
    rows = [{"id": f"c{i}", "conversations": c} for i, c in enumerate(conversations)]
    path.write_text(json.dumps(rows))
    return str(path)


def test_roles_are_mapped_and_edges_dropped(tmp_path):
    path = source(tmp_path, turns("gpt", "human", "chatgpt", "user", "bard", "human"))
    (conversation,) = prepare(path, None, ALL).conversations
    roles = [message["role"] for message in conversation["messages"]]
    assert roles == ["user", "assistant", "user", "assistant"]
    assert conversation["messages"][0]["content"] == "text 1"
    assert conversation["id"] == "c0"


def test_what_is_not_kept_is_rejected_with_file_row_and_reason(tmp_path):
    empty = [*turns("human"), {"from": "gpt", "value": "  "}]
    path = source(
        tmp_path, turns("human", "gpt"), turns("human", "human", "gpt"), [], empty,
        turns("human", "system", "gpt"), turns("gpt"),
    )  # fmt: skip
    prepared = prepare(path, None, ALL)
    assert len(prepared.conversations) + len(prepared.rejected) == 6
    reasons = {row["row"]: row["reason"] for row in prepared.rejected}
    assert reasons[1].startswith("roles do not alternate")
    assert reasons[2] == reasons[5] == "no user turn with a reply"
    assert reasons[3].startswith("empty turn")
    assert reasons[4] == "system turn not at the start"
    assert {row["file"] for row in prepared.rejected} == {"data.json"}
    counts = statistics(prepared, {"train": prepared.conversations})
    assert counts["conversations"] == {"train": 1}
    assert sum(counts["rejected"].values()) == 5


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{}", "found a JSON dict, expected ShareGPT's schema"),
        ("[]", "no usable conversation; the list is empty"),
        ('[{"text": "x"}]', r"row 0: found keys \['text'\], expected"),
        ('[{"id": 1, "conversations": [{"from": "alien", "value": "x"}]}]', "unknown role 'alien'"),
        ('[{"id": 1, "conversations": [{"from": "human"}]}]', "turn 0: found .* `value`"),
        ('[{"id": 1, "conversations": []}]', "all 1 rejected, the first because: no user turn"),
    ],
)
def test_a_file_of_another_form_ends_with_one_message(tmp_path, content, expected):
    path = tmp_path / "data.json"
    path.write_text(content)
    with pytest.raises(InputError, match=expected):
        prepare(str(path), None, ALL)


def test_a_folder_is_read_in_name_order_and_the_shuffle_is_the_seeds(tmp_path):
    for name, seed in (("b.json", 1), ("a.json", 0)):
        (tmp_path / name).write_text(json.dumps(make_conversations(30, seed)))
    taken = [
        [row["messages"] for row in prepare(str(tmp_path), None, selection).conversations]
        for selection in (
            ALL, ALL, ShareGptSelection(frac=1.0, shuffle_seed=1), ShareGptSelection(n=10),
        )
    ]  # fmt: skip
    assert taken[0] == taken[1] != taken[2]
    assert taken[3] == taken[0][:10]
    assert len(prepare(str(tmp_path), None, ShareGptSelection(frac=0.5)).conversations) == 30
    with pytest.raises(InputError, match="n = 61: .* only 60 usable"):
        prepare(str(tmp_path), None, ShareGptSelection(n=61))


def test_system_prompts_are_added_only_where_none_stands(tmp_path):
    path = source(tmp_path, turns("human", "gpt"), turns("system", "human", "gpt"))
    prepared = prepare(path, None, ShareGptSelection(frac=1.0, system_prompt="llama2"))
    systems = {row["id"]: row["messages"][0]["content"] for row in prepared.conversations}
    assert systems["c0"].startswith("You are a helpful, respectful and honest assistant.")
    assert systems["c1"] == "text 0"
    with pytest.raises(InputError, match=r"system_prompt = lama: neither .*\(none, llama2\)"):
        read_system_prompt("lama")


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


def test_half_a_surrogate_pair_is_rejected_before_it_cannot_be_written(tmp_path):
    broken = [{"from": "human", "value": "x\ud83d"}, {"from": "gpt", "value": "y"}]
    prepared = prepare(source(tmp_path, broken, turns("human", "gpt")), None, ALL)
    assert [row["reason"] for row in prepared.rejected] == [
        "turn holds half a surrogate pair: turn 0"
    ]
    assert len(prepared.conversations) == 1
