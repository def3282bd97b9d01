"""Every field of a row and of its turns is used, or counted, or the reason for a rejection."""

import json

import pyarrow
import pytest
from pyarrow import parquet

from eagle.config import ROLES
from eagle.errors import InputError
from eagle.sharegpt.conversations import messages_of, named_fields, usable_conversations
from eagle.sharegpt.prepare import prepare, statistics
from eagle.sharegpt.turns import Rejected, turns_of
from tests.tiny import settings, write_json_lines

ASKED = {"role": "user", "content": "Why?"}
TOLD = {"role": "assistant", "content": "So."}
SELECTION = {"frac": 1.0, "bench": None, "drop_duplicates": False}


def row(*turns: dict, **fields) -> dict:
    return {"id": "r", "messages": list(turns), **fields}


def prepared_of(tmp_path, *rows, **selection):
    """What `prepare` makes of the rows: the messages of those that it kept, and the reasons."""
    path = write_json_lines(tmp_path / "data.jsonl", rows)
    rules = settings("sharegpt", **SELECTION | selection)
    prepared = prepare(str(path), None, rules, tmp_path)
    prepared.usable.write(tmp_path / "kept.jsonl", range(len(prepared.usable)))
    kept = [json.loads(line) for line in (tmp_path / "kept.jsonl").read_text().splitlines()]
    return [conversation["messages"] for conversation in kept], prepared


@pytest.mark.parametrize(
    "content",
    [
        {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]},
        {"conversations": [ASKED, TOLD]},  # SpecForge
        {"messages": [{"from": "user", "value": "Why?"}, {"from": "assistant", "value": "So."}]},
        {"conversation": [ASKED, TOLD]},
        {"conversations": [], "messages": [ASKED, TOLD]},
        {"conversations": None, "messages": [ASKED, TOLD], "system": None, "tools": None},
        {"messages": [{**ASKED, "from": None, "value": None}, {"from": "gpt", "content": "So."}]},
        {"messages": [{**ASKED, "from": "user", "value": "Why?"}, TOLD]},
        {"messages": [ASKED, {**TOLD, "tool_calls": [], "weight": 1, "images": []}]},
        {"messages": [ASKED, {**TOLD, "tool_calls": None, "train": True, "reasoning": ""}]},
        {"messages": [{**ASKED, "weight": 0}, TOLD], "tools": "[]", "images": [], "system": ""},
        {"messages": [ASKED, {**TOLD, "function_call": {"name": None, "arguments": None}}]},
        {"messages": [ASKED, TOLD], "weight": 1.0, "documents": []},
    ],
)
def test_one_conversation_under_every_name_of_its_fields(content):
    assert messages_of(content, "here") == [ASKED, TOLD]
    assert turns_of(content, ROLES).fields_not_read == set()


@pytest.mark.parametrize(
    ("reason", "kept"), [("length", {"finish_reason": "length"}), ("stop", {})]
)
def test_a_reply_that_was_cut_at_a_limit_keeps_its_mark(tmp_path, reason, kept):
    cut = TOLD | {"finish_reason": reason}
    (messages,), prepared = prepared_of(tmp_path, row(ASKED, cut))
    assert messages == [ASKED, TOLD | kept]
    assert not prepared.fields_not_read
    assert messages_of({"messages": messages}, "here") == messages  # as the later stages read it


@pytest.mark.parametrize("field", ["system", "system_prompt", "system_message"])
def test_a_system_prompt_of_the_row_is_its_system_turn(tmp_path, field):
    system = {"role": "system", "content": "Rhyme."}
    rows = [
        row(ASKED, TOLD, **{field: "Rhyme."}),
        row(system, ASKED, TOLD, **{field: " Rhyme.\n"}),
        row(ASKED, TOLD, **{field: [{"type": "text", "text": "Rhyme."}]}),
    ]
    kept, prepared = prepared_of(tmp_path, *rows, system_prompt="llama2")
    assert kept == [[system, ASKED, TOLD]] * 3
    assert prepared.changes == {"system prompt of the row made a turn": 2}
    kept, prepared = prepared_of(tmp_path, *rows, system_turns="drop")
    assert kept == [[ASKED, TOLD]] * 3
    assert prepared.changes == {"system turn dropped": 3}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (row({"role": "system", "content": "Sing."}, ASKED, TOLD, system="Rhyme."),
         "`system` of the row differs from another system prompt of it"),
        (row(ASKED, TOLD, system="Rhyme.", system_prompt="Sing."),
         "`system_prompt` of the row differs from another system prompt of it"),
        (row(ASKED, TOLD, system={"text": "Rhyme."}), "`system` of the row is not text"),
        (row(ASKED, TOLD, tools=[{"name": "weather"}]), "row with `tools`"),
        (row(ASKED, TOLD, tools='[{"name": "weather"}]'), "row with `tools`"),
        (row(ASKED, TOLD, functions=[{}]), "row with `functions`"),
        (row(ASKED, TOLD, image="cat.jpg"), "row with `image`"),
        (row(ASKED, TOLD, images=["cat.jpg"]), "row with `images`"),
        (row(ASKED, TOLD, documents=["d"]), "row with `documents`"),
        (row(ASKED, TOLD, weight=0), "row that is not to be trained on: `weight` = 0"),
        (row(ASKED, TOLD, train=False), "row that is not to be trained on: `train` = False"),
        (row(ASKED, {"role": "assistant", "content": None, "tool_calls": [{"id": 1}]}),
         "turn with `tool_calls`: turn 1"),
        (row(ASKED, {"role": "assistant", "tool_calls": [{"id": 1}]}),
         "turn with `tool_calls`: turn 1"),
        (row(ASKED, {**TOLD, "function_call": {"name": "f"}}),
         "turn with `function_call`: turn 1"),
        (row({**ASKED, "images": ["cat.jpg"]}, TOLD), "turn with `images`: turn 0"),
        (row(ASKED, {"role": "tool", "content": "17"}, TOLD), "turn of role 'tool': turn 1"),
        (row(ASKED, {"from": "observation", "value": "17"}, TOLD),
         "turn of role 'observation': turn 1"),
        (row(ASKED, {"role": "Function", "content": "17"}, TOLD),
         "turn of role 'Function': turn 1"),
        (row(ASKED, {"role": "alien", "content": "17"}),
         "unknown role 'alien', which sharegpt.roles does not name: turn 1"),
        (row(ASKED, {**TOLD, "weight": 0}),
         "reply that is not to be trained on (`weight` = 0): turn 1"),
        (row(ASKED, {**TOLD, "weight": 0.5}),
         "reply that is not to be trained on (`weight` = 0.5): turn 1"),
        (row(ASKED, {**TOLD, "train": False}),
         "reply that is not to be trained on (`train` = False): turn 1"),
        (row(ASKED, {**TOLD, "loss": False}),
         "reply that is not to be trained on (`loss` = False): turn 1"),
        (row({**ASKED, "from": "gpt"}, TOLD), "`from` and `role` differ: turn 0"),
        (row(ASKED, {**TOLD, "value": "No."}), "`value` and `content` differ: turn 1"),
        (row(ASKED, {"role": "assistant", "content": None, "refusal": "No."}),
         "turn is not text: turn 1"),
        (row(ASKED, {**TOLD, "reasoning": {"effort": "high"}}), "`reasoning` is not text: turn 1"),
        (row(ASKED, {**TOLD, "reasoning": "a", "thinking": "b"}),
         "`reasoning`, `thinking`: two thoughts that differ: turn 1"),
        (row(ASKED, {"role": "assistant", "content": "<think>\na\n</think>\n\n1", "thinking": "b"}),
         "`thinking`: two thoughts that differ: turn 1"),
        (row(ASKED, {"role": "assistant", "content": "", "reasoning": "a"}), "empty turn: turn 1"),
        ("text", "another schema: found a str, expected "),
        ({"instruction": "Why?", "output": "So."},
         "another schema: found keys ['instruction', 'output'], expected "),
        (row({"role": "user", "text": "Why?"}, TOLD), "another schema: turn 0: found "),
        (row("Why?", "So."), "another schema: turn 0: found 'Why?', expected an object with "),
    ],
)  # fmt: skip
def test_what_a_row_means_and_cannot_be_used_rejects_that_row_alone(tmp_path, content, reason):
    kept, prepared = prepared_of(tmp_path, content, row(ASKED, TOLD))
    assert kept == [[ASKED, TOLD]]
    prepared.rejected.write(tmp_path / "rejected.jsonl", range(1))
    (rejected,) = [json.loads(line) for line in (tmp_path / "rejected.jsonl").open()]
    assert rejected["row"] == 0 and rejected["reason"].startswith(reason)
    assert sum(statistics(prepared, {"all": [0]})["rejected"].values()) == 1


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "content": None, "tool_calls": [{"id": 1}]},
        {"role": "tool", "content": "17"},
        {"role": "alien", "content": "17"},
        {**TOLD, "weight": 0},
        {**TOLD, "images": ["cat.jpg"]},
    ],
)
@pytest.mark.parametrize("joined", [True, False])
def test_what_stands_before_an_unusable_turn_can_be_kept(tmp_path, turn, joined):
    kept, prepared = prepared_of(
        tmp_path, row(ASKED, TOLD, ASKED, turn, ASKED, TOLD), row(ASKED, turn),
        unusable_turn="cut", require_alternation=not joined,
    )  # fmt: skip
    assert kept == [[ASKED, TOLD]]
    assert prepared.changes["cut before an unusable turn"] == 1
    assert len(prepared.rejected) == 1


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_apart_from_the_reply_is_kept_as_its_thought(tmp_path, field):
    reply = {"role": "assistant", "content": "17", field: "Ten and seven.\n"}
    thought = {"role": "assistant", "content": "<think>\nTen and seven.\n</think>\n\n17"}
    rows = [row(ASKED, reply), row(ASKED, {**thought, field: "Ten and seven."})]
    kept, prepared = prepared_of(tmp_path, *rows)
    assert kept == [[ASKED, thought]] * 2
    assert prepared.changes == {"reasoning made a thought": 1}
    assert prepared.fields_not_read == {}


def test_a_role_can_be_given_another_meaning(tmp_path):
    rows = [row({"role": "Alien", "content": "Why?"}, TOLD), row(ASKED, TOLD)]
    kept, _ = prepared_of(tmp_path, *rows, roles=ROLES | {"alien": "user"})
    assert kept == [[ASKED, TOLD]] * 2
    kept, prepared = prepared_of(tmp_path, *rows, roles=ROLES | {"alien": "reject"})
    assert kept == [[ASKED, TOLD]]
    assert prepared.rejections.counts == {"turn of role 'Alien'": 1}


def test_fields_that_are_not_understood_are_counted_by_rows(tmp_path):
    rows = [
        row(ASKED, {**TOLD, "name": "Bo", "score": 0}, {**ASKED, "name": "Al"}, TOLD, lang="en"),
        row({**ASKED, "reasoning": "?"}, TOLD, lang="fr", idx=0, **{"\ud83d x": {}}),
        row(ASKED, TOLD, lang=None, conversations=[ASKED, TOLD]),
        row(lang="de"),  # rejected: its reason says what became of it
    ]
    _, prepared = prepared_of(tmp_path, *rows)
    expected = {
        "lang": 2, "idx": 1, "messages": 1, "turns[].name": 1, "turns[].score": 1,
        "turns[].reasoning": 1, r"'\ud83d x'": 1,
    }  # fmt: skip
    assert prepared.fields_not_read == expected
    counts = statistics(prepared, {"all": prepared.selected})
    assert counts["fields_not_read"] == expected
    note = named_fields(prepared.fields_not_read)
    assert note.startswith("fields that were not read: lang (2 rows), ")
    assert note.endswith(", and 2 more")
    assert named_fields(prepared_of(tmp_path, row(ASKED, TOLD))[1].fields_not_read) == ""


def test_the_columns_of_a_parquet_file_have_the_same_fates(tmp_path):
    rows = [
        {"messages": [ASKED, TOLD], "system": "Rhyme.", "tools": None, "lang": "en"},
        {"messages": [ASKED, TOLD], "system": None, "tools": "[]", "lang": None},
        {"messages": [ASKED, TOLD], "system": None, "tools": "[1]", "lang": "fr"},
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "data.parquet")
    rules = settings("sharegpt", **SELECTION)
    prepared = prepare(str(tmp_path / "data.parquet"), None, rules, tmp_path)
    assert prepared.changes["system prompt of the row made a turn"] == 1
    assert prepared.rejections.counts == {"row with `tools`": 1}
    assert prepared.fields_not_read == {"lang": 1}


def test_a_file_of_which_no_row_can_be_used_ends_with_the_most_frequent_reasons(tmp_path):
    rows = (
        [row(ASKED, TOLD, tools=[1])] * 3 + [{"text": "x"}] * 2 + [row(ASKED, {**TOLD, "loss": 0})]
    )
    for use in (lambda: prepared_of(tmp_path, *rows, row()),
                lambda: usable_conversations(tmp_path / "data.jsonl")):  # fmt: skip
        with pytest.raises(InputError) as error:
            use()
        message = str(error.value)
        assert "3 because: row with `tools` (" in message
        assert "2 because: another schema: found keys ['text'], expected " in message
        assert message.endswith("; and 1 other reasons") and "\n" not in message


def test_one_odd_row_does_not_stop_a_file_that_has_good_ones(tmp_path):
    rows = [{"text": "x"}, row(ASKED, TOLD, lang="en"), row(ASKED, TOLD, tools=[1]), 7]
    assert prepared_of(tmp_path, *rows)[0] == [[ASKED, TOLD]]
    path = write_json_lines(tmp_path / "lines.jsonl", rows[:3])
    usable = usable_conversations(path)
    assert usable.conversations == [{"id": "r", "messages": [ASKED, TOLD]}]
    assert sum(usable.rejections.counts.values()) == 2
    assert usable.fields_not_read == {"lang": 1}
    with pytest.raises(Rejected, match="row with `tools`"):
        turns_of(rows[2], ROLES)
