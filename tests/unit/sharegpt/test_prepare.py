"""ShareGPT rows become regular conversations, or are rejected with a reason, or end the run."""

import json
import random
from pathlib import Path

import pytest

from eagle.config import PrepareShareGptConfig
from eagle.errors import InputError
from eagle.sharegpt import prepare as sharegpt
from eagle.sharegpt import rows
from eagle.sharegpt.lines_on_disk import LinesOnDisk
from eagle.sharegpt.overlap import QuestionSearch
from eagle.sharegpt.prepare import Prepared, named_selection, prepare, statistics
from eagle.system_prompts import system_turn
from tests.tiny import make_conversations, make_messages, settings, write_json_lines

ALL = {"frac": 1.0, "bench": None}


def turns(*speakers: str) -> list[dict]:
    return [{"from": speaker, "value": f"text {i}"} for i, speaker in enumerate(speakers)]


def source(tmp_path, *conversations: list[dict]) -> str:
    path = tmp_path / "data.json"
    rows = [{"id": f"c{i}", "conversations": c} for i, c in enumerate(conversations)]
    path.write_text(json.dumps(rows))
    return str(path)


def prepared_of(path, processes: int = 1, **selection) -> Prepared:
    selection = ALL | ({"frac": None} if "n" in selection else {}) | selection
    rules = settings("sharegpt", **selection)
    return prepare(str(path), None, rules, Path(path).parent / "scratch", processes)


def lines(written: LinesOnDisk, numbers, folder) -> list[dict]:
    written.write(folder / "lines.jsonl", numbers)
    return [json.loads(line) for line in (folder / "lines.jsonl").open(encoding="utf-8")]


def chosen(path, **selection) -> list[dict]:
    prepared = prepared_of(path, **selection)
    return lines(prepared.usable, prepared.selected, Path(path).parent)


def rejected(path, **selection) -> dict[int, str]:
    prepared = prepared_of(path, **selection)
    rows = lines(prepared.rejected, range(len(prepared.rejected)), Path(path).parent)
    assert {row["file"] for row in rows} <= {"data.json"}
    return {row["row"]: row["reason"] for row in rows}


def test_roles_are_mapped_and_edges_dropped(tmp_path):
    path = source(tmp_path, turns("gpt", "human", "chatgpt", "user", "bard", "human"))
    (conversation,) = chosen(path)
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
    reasons = rejected(path)
    assert reasons[1].startswith("roles do not alternate")
    assert reasons[2] == reasons[5] == "no user turn with a reply"
    assert reasons[3].startswith("empty turn")
    assert reasons[4] == "system turn not at the start"
    prepared = prepared_of(path)
    counts = statistics(prepared, {"train": prepared.selected})
    assert counts["read"] == 6
    assert counts["kept"] == 1
    assert counts["conversations"] == {"train": 1}
    assert sum(counts["rejected"].values()) == 5


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{}", r"another schema: found keys \[\], expected .*row 0"),
        ('[["x"]]', "another schema: found a list, expected .*row 0"),
        ("[]", "no usable conversation; the list is empty"),
        ('[{"text": "x"}]', r"found keys \['text'\], expected .*row 0"),
        ('[{"id": 1, "conversations": [{"from": "alien", "value": "x"}]}]', "unknown role 'alien'"),
        ('[{"id": 1, "conversations": [{"from": "human"}]}]', "turn 0: found .* `value`"),
        ('[{"id": 1, "conversations": []}]', "all 1 rows rejected, 1 because: no user turn"),
    ],
)
def test_a_file_of_another_form_ends_with_one_message(tmp_path, content, expected):
    path = tmp_path / "data.json"
    path.write_text(content)
    with pytest.raises(InputError, match=expected):
        prepared_of(path)


def test_a_folder_is_read_in_name_order_and_the_shuffle_is_the_seeds(tmp_path):
    for name, seed in (("b.json", 1), ("a.json", 0)):
        (tmp_path / name).write_text(json.dumps(make_conversations(30, seed)))
    taken = [
        [row["messages"] for row in chosen(tmp_path / "", **selection)]
        for selection in ({}, {}, {"shuffle_seed": 1}, {"n": 10})
    ]
    assert taken[0] == taken[1] != taken[2]
    assert taken[3] == taken[0][:10]
    in_order = [*make_conversations(30, 0), *make_conversations(30, 1)]
    random.Random(0).shuffle(in_order)  # the upstream tutorial's shuffle, of the whole list
    texts = [[turn["value"] for turn in row["conversations"]] for row in in_order]
    assert [[message["content"] for message in row] for row in taken[0]] == texts
    assert len(chosen(tmp_path / "", frac=0.5)) == 30
    with pytest.raises(InputError, match="n = 61: .* only 60 usable"):
        prepared_of(tmp_path / "", n=61)


def test_a_folders_subfolders_are_read_and_named(tmp_path):
    for name in ("b", "a/c"):
        (tmp_path / "data" / name).mkdir(parents=True)
        row = {"conversations": turns("human", "system", "gpt")}
        rows = [*make_conversations(2, seed=len(name)), row]
        (tmp_path / "data" / name / "rows.json").write_text(json.dumps(rows))
    prepared = prepared_of(tmp_path / "data")
    assert [origin[0] for origin in prepared.origins] == ["a/c/rows.json"] * 2 + ["b/rows.json"] * 2
    files = [row["file"] for row in lines(prepared.rejected, range(2), tmp_path)]
    assert files == ["a/c/rows.json", "b/rows.json"]


@pytest.mark.parametrize(
    ("selection", "left_out"),
    [({"frac": 1.0}, 0), ({"frac": 0.59}, 4), ({"n": 3}, 7)],
)
def test_what_selection_leaves_out_is_counted_and_named(tmp_path, selection, left_out):
    rows = make_conversations(10, turns=1)
    path = tmp_path / "data.json"
    path.write_text(json.dumps([*rows, rows[0]]))
    prepared = prepared_of(path, **selection)
    counts = statistics(prepared, {"train": prepared.selected})
    assert counts["not_selected"] == left_out
    assert (
        counts["read"] == len(prepared.selected) + left_out + counts["rejected"]["exact duplicate"]
    )
    rules = settings("sharegpt", **ALL | {"frac": None} | selection)
    (key,) = selection
    named = f"{left_out} of 10 usable conversations left out by {key} = {selection[key]}"
    assert named_selection(prepared, rules) == (named if left_out else "")


def test_a_link_that_leads_out_of_the_folder_of_data_is_refused(tmp_path):
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere.json"
    data.mkdir()
    (data / "a.json").write_text(json.dumps(make_conversations(2)))
    (data / "b.json").symlink_to("a.json")
    assert len(prepared_of(data).usable) == 2
    elsewhere.write_text("secret")
    (data / "c.json").symlink_to(elsewhere)
    with pytest.raises(InputError, match="c.json: a link that leads out of .*; put the file itsel"):
        prepared_of(data)
    (data / "c.json").rename(data / "c.jsonl")
    with pytest.raises(InputError, match="c.jsonl: a link that leads out of .*data; put the file"):
        QuestionSearch(data, 8)


def test_system_prompts_are_added_only_where_none_stands(tmp_path):
    path = source(tmp_path, turns("human", "gpt"), turns("system", "human", "gpt"))
    found = chosen(path, system_prompt="llama2")
    systems = {row["id"]: row["messages"][0]["content"] for row in found}
    assert systems["c0"].startswith("You are a helpful, respectful and honest assistant.")
    assert systems["c1"] == "text 0"
    with pytest.raises(InputError, match=r"system_prompt = lama: neither .*\(none, llama2\)"):
        system_turn("lama")
    dropped = prepared_of(path, system_turns="drop")
    assert dropped.changes["system turn dropped"] == 1
    for system_prompt, first in (("none", {"user"}), ("llama2", {"system"})):
        found = chosen(path, system_turns="drop", system_prompt=system_prompt)
        assert {row["messages"][0]["role"] for row in found} == first
        assert "text 0" not in {row["messages"][0]["content"] for row in found if "c1" in row["id"]}


def test_half_a_surrogate_pair_is_rejected_before_it_cannot_be_written(tmp_path):
    broken = [{"from": "human", "value": "x\ud83d"}, {"from": "gpt", "value": "y"}]
    path = source(tmp_path, broken, turns("human", "gpt"))
    assert rejected(path) == {0: "turn holds half a surrogate pair: turn 0"}
    content = [{"id": "\ud83d", "conversations": turns("human", "gpt")},
               {"id": 1.5, "conversations": turns("human", "gpt")},
               {"id": 7, "conversations": turns("human", "gpt")}]  # fmt: skip
    Path(path).write_text(json.dumps(content))
    assert rejected(path, drop_duplicates=False) == {}
    prepared = prepared_of(path, drop_duplicates=False)
    assert sorted(row["id"] for row in chosen(path, drop_duplicates=False)) == [0, 1, 7]
    assert prepared.changes["id left out, which is neither text nor a whole number"] == 2


def test_every_rule_is_a_parameter(tmp_path):
    path = source(
        tmp_path, turns("gpt", "human", "gpt"), turns("human", "human", "gpt", "human"),
        [*turns("human", "gpt", "human"), {"from": "gpt", "value": " "}],
        [*turns("human", "gpt", "human"), {"from": "gpt", "value": "x" * 100}],
    )  # fmt: skip
    assert rejected(path, drop_leading_reply=False)[0] == "begins with a reply"
    joined = {row["id"]: row["messages"] for row in chosen(path, require_alternation=False)}
    assert joined["c1"] == [
        {"role": "user", "content": "text 0\n\ntext 1"}, {"role": "assistant", "content": "text 2"},
    ]  # fmt: skip
    reasons = rejected(path, maximum_turn_characters=99)
    assert reasons[2] == "empty turn: turn 3"
    assert reasons[3] == "turn of more than 99 characters: turn 3"
    cut = prepared_of(path, unusable_turn="cut", maximum_turn_characters=99, drop_duplicates=False)
    assert len(cut.selected) == 3
    assert cut.changes["cut before an unusable turn"] == 2
    assert cut.changes["leading reply dropped"] == 1
    Path(path).write_text(json.dumps([{"conversations": turns("Alien", "gpt")}]))
    assert [row["id"] for row in chosen(path, roles={"alien": "user", "gpt": "assistant"})] == [0]


def test_duplicates_are_rejected_and_the_first_one_is_kept(tmp_path):
    words = " ".join(str(number) for number in range(200))
    near = [{"from": "human", "value": words}, {"from": "gpt", "value": "yes"}]
    nearly = [{"from": "human", "value": words + " more"}, {"from": "gpt", "value": "yes"}]
    path = source(tmp_path, turns("human", "gpt"), near, turns("user", "bard"), nearly)
    assert rejected(path) == {2: "exact duplicate: of 'c0'"}
    assert rejected(path, drop_duplicates=False) == {}
    assert rejected(path, near_duplicate_similarity=0.9)[3] == "near duplicate: of 'c1'"
    prepared = prepared_of(path, near_duplicate_similarity=0.9)
    counts = statistics(prepared, {"train": prepared.selected})
    assert (counts["read"], counts["kept"]) == (4, 2)
    assert counts["rejected"] == {"exact duplicate": 1, "near duplicate": 1}


def test_evaluation_questions_do_not_get_into_training(tmp_path):
    question = {
        "question_id": 5,
        "category": "c",
        "turns": ["How do I fold a paper crane quickly?"],
    }
    bench = write_json_lines(tmp_path / "bench.jsonl", [question])
    leak = [{"from": "human", "value": "hey, how do I fold a paper crane quickly"},
            {"from": "gpt", "value": "so"}]  # fmt: skip
    path = source(tmp_path, turns("human", "gpt"), leak)
    assert rejected(path, bench=str(bench)) == {1: "holds a bench prompt: bench.jsonl, question 5"}
    assert rejected(path, bench=str(bench), leak_words=9) == {}


def test_texts_in_parts_are_joined_and_images_refused_by_name(tmp_path):
    def row(*parts) -> dict:
        return {"messages": [{"role": "user", "content": list(parts)},
                             {"role": "assistant", "content": "fine"}]}  # fmt: skip

    text = {"type": "text", "text": "look: "}
    path = tmp_path / "data.json"
    content = [row(text, text), row(text, {"type": "image_url", "image_url": {"url": "x"}}),
               row({"type": "text"}), {"messages": [{"role": "user", "content": None}]},
               {"messages": [{"role": "user", "content": 5}, {"role": "assistant",
                                                              "content": "x"}]},
               {"messages": [{"role": "system", "content": [{"type": "image_url"}]},
                             {"role": "user", "content": "x"},
                             {"role": "assistant", "content": "x"}]},
               {"text": "x"}]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in content))
    assert chosen(path)[0]["messages"][0]["content"] == "look: look: "
    reasons = rejected(path)
    assert reasons[1] == "turn holds a part of another kind, 'image_url': turn 0"
    assert reasons[2] == reasons[4] == "turn is not text: turn 0"
    assert reasons[3] == "no user turn with a reply"
    assert reasons[5] == "turn holds a part of another kind, 'image_url': turn 0"
    assert reasons[6].startswith("another schema: found keys ['text'], expected")


def test_any_number_of_processes_leaves_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(sharegpt, "PARALLEL_BYTES", 0)
    monkeypatch.setattr(rows, "CHUNK", 3000)
    path = tmp_path / "data.json"
    content = [*make_conversations(150), *make_conversations(20, 0), {"conversations": []}]
    path.write_text(json.dumps(content))
    found = []
    for processes in (1, 2):
        prepared = prepared_of(path, processes, near_duplicate_similarity=0.9)
        numbers = range(len(prepared.rejected))
        found.append((lines(prepared.usable, prepared.selected, tmp_path),
                      lines(prepared.rejected, numbers, tmp_path)))  # fmt: skip
    assert found[0] == found[1]
    assert len(found[0][1]) >= 21


def test_the_commands_own_defaults_reject_no_conversation(tmp_path):
    path = write_json_lines(tmp_path / "data.jsonl", make_messages(9))
    command = PrepareShareGptConfig(n=9, output=tmp_path / "x", source=str(path))
    assert command.bench is None
    assert len(prepare(str(path), None, command, tmp_path).selected) == 9


def weighted(tmp_path, *weights: float) -> list[dict]:
    """Sources of 40 conversations each, with these weights."""
    sources = []
    for number, weight in enumerate(weights):
        folder = tmp_path / f"source-{number}"
        folder.mkdir(exist_ok=True)
        rows = make_messages(40, seed=number)
        for row in rows:
            row["id"] = f"{number}-{row['id']}"
        write_json_lines(folder / "data.jsonl", rows)
        sources.append({"source": str(folder), "revision": None, "weight": weight})
    return sources


def of_sources(tmp_path, sources: list[dict], **selection) -> tuple[Prepared, list[str]]:
    rules = settings("sharegpt", **ALL | {"drop_duplicates": False} | selection, source=sources)
    prepared = prepare(rules.source, None, rules, tmp_path)
    return prepared, [row["id"] for row in lines(prepared.usable, prepared.selected, tmp_path)]


def test_of_several_sources_the_weights_say_how_much_is_taken(tmp_path):
    prepared, ids = of_sources(tmp_path, weighted(tmp_path, 1, 0.25))
    names = [str(tmp_path / f"source-{number}") for number in (0, 1)]
    counts = {names[0]: {"usable": 40, "taken": 40}, names[1]: {"usable": 40, "taken": 10}}
    assert prepared.sources == counts
    assert [sum(i.startswith(f"{number}-") for i in ids) for number in (0, 1)] == [40, 10]
    numbers = {"train": prepared.selected[:30], "validation": prepared.selected[30:]}
    assert statistics(prepared, numbers)["sources"] == counts
    note = named_selection(prepared, settings("sharegpt", **ALL))
    assert note == f"taken: 40 of 40 of {names[0]}, 10 of 40 of {names[1]}"
    # the same share whatever stands beside it, and another one with another seed
    share = {i for i in ids if i.startswith("1-")}
    _, less = of_sources(tmp_path, weighted(tmp_path, 0.5, 0.25))
    assert {i for i in less if i.startswith("1-")} == share
    _, other = of_sources(tmp_path, weighted(tmp_path, 1, 0.25), shuffle_seed=1)
    assert {i for i in other if i.startswith("1-")} != share
    # `frac` takes of what the weights took
    halved, ids = of_sources(tmp_path, weighted(tmp_path, 1, 0.25), frac=0.5)
    assert len(ids) == 25
    assert "25 of 50 usable conversations left out by frac = 0.5" in named_selection(
        halved, settings("sharegpt", **ALL | {"frac": 0.5})
    )


def test_a_file_in_two_sources_and_weights_that_take_nothing_are_refused(tmp_path):
    sources = weighted(tmp_path, 1)
    file = {"source": str(tmp_path / "source-0/data.jsonl"), "revision": None, "weight": 1}
    with pytest.raises(InputError, match="data.jsonl: is in two of the sources"):
        of_sources(tmp_path, [*sources, file])
    with pytest.raises(InputError, match="no conversation is taken; raise the weights"):
        of_sources(tmp_path, weighted(tmp_path, 0.01, 0.01))
