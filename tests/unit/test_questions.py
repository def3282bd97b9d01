"""Questions by name and from files are read in one schema; anything else is refused."""

from dataclasses import replace

import pyarrow
import pytest
from pyarrow import parquet

from eagle.errors import InputError
from eagle.questions import HUB_QUESTIONS, questions_file, select_questions
from tests.hub import serve
from tests.tiny import write_json_lines


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The files of the four named sets with their publishers' columns."""
    folder = tmp_path_factory.mktemp("hub")
    rows = {
        "mt_bench": [
            {"question_id": 81, "category": "writing", "prompt": ["Write.", "Again."]},
            {"question_id": 101, "category": "math", "prompt": ["Add.", "Halve."],
             "reference": ["4", "2"]},
        ],
        "humaneval": [{"task_id": "HumanEval/0", "prompt": "\n\ndef f():\n"}] * 3,
        "gsm8k": [{"question": "How many?", "answer": "#### 3"}] * 3,
        "alpaca": [
            {"instruction": "Sort.", "input": "3 1 2", "output": "1 2 3"},
            {"instruction": "Greet.", "input": "", "output": "Hello."},
        ],
    }  # fmt: skip
    for name, questions in HUB_QUESTIONS.items():
        path = folder / questions.source.split("/", 2)[2]
        path.parent.mkdir(exist_ok=True)
        if path.suffix == ".parquet":
            parquet.write_table(pyarrow.Table.from_pylist(rows[name]), path)
        else:
            write_json_lines(path, rows[name])
    return folder


def test_named_sets_come_from_their_pinned_revision_in_one_schema(published):
    with serve(published):
        for name, published_set in HUB_QUESTIONS.items():
            assert published_set.revision in str(questions_file(name))
        questions = [select_questions(name, 2) for name in HUB_QUESTIONS]
    assert [row["turns"] for rows in questions for row in rows] == [
        ["Write.", "Again."], ["Add.", "Halve."],
        *[["Complete the code I provided.\n\ndef f():\n"]] * 2,
        *[["How many?"]] * 2,
        ["Sort.\n\n3 1 2"], ["Greet."],
    ]  # fmt: skip
    assert [rows[0]["question_id"] for rows in questions] == [81, 0, 0, 0]
    categories = [rows[0]["category"] for rows in questions]
    assert categories == ["writing", "code", "math", "instructions"]


def test_without_the_hub_the_message_says_how_to_give_a_file(tmp_path, monkeypatch):
    not_fetched = replace(HUB_QUESTIONS["gsm8k"], revision="0" * 40)
    monkeypatch.setitem(HUB_QUESTIONS, "gsm8k", not_fetched)
    expected = (
        "the bench gsm8k: the repository has no such file. Without the hub: set evaluate.bench and "
        "sharegpt.bench to a file of these questions, JSON lines with question_id, category and a "
    )
    with serve(tmp_path), pytest.raises(InputError, match=expected):
        questions_file("gsm8k")


def test_questions_of_a_file_are_spread_evenly(tmp_path):
    rows = [{"question_id": n, "category": "", "turns": [f"question {n}"]} for n in range(10)]
    path = write_json_lines(tmp_path / "bench.jsonl", rows)
    assert [row["question_id"] for row in select_questions(str(path), 4)] == [0, 2, 5, 7]
    assert select_questions(str(path), 99) == rows


@pytest.mark.parametrize(
    "row",
    [
        {"question_id": 2, "category": "x"},
        {"question_id": 2, "category": "x", "turns": []},
        {"question_id": 2, "category": "x", "turns": "text"},
        {"question_id": 2, "category": "x", "turns": ["first", " "]},
        {"question_id": 2, "turns": ["first"]},
        {"category": "x", "turns": ["first"]},
    ],
)
def test_a_row_without_what_a_question_needs_is_named(tmp_path, row):
    good = {"question_id": 1, "category": "x", "turns": ["why"]}
    path = write_json_lines(tmp_path / "bench.jsonl", [good, row])
    with pytest.raises(InputError, match=r"bench.jsonl, line 2: expected question_id, category"):
        select_questions(str(path), 1)


def test_neither_a_file_nor_a_name():
    with pytest.raises(
        InputError, match="no such file, nor a bench of that name; give one of mt_b"
    ):
        questions_file("mtbench")
