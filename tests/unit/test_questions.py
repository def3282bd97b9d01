"""Benches by name and from files come out in one schema; what is no bench is refused."""

import json
import re
import subprocess
import sys

import pyarrow
import pytest
from pyarrow import parquet

from eagle.errors import InputError
from eagle.questions import BENCHES, bench_file, read_bench
from tests.conftest import ROOT
from tests.hub import environment, serve
from tests.tiny import write_json_lines

READ = """
import json
import sys
from eagle.bench import bench_file, read_bench
from eagle.errors import one_clear_message
with one_clear_message():
    for name in sys.argv[1:]:
        print(json.dumps([str(bench_file(name)), read_bench(name, 2)]))
"""


def read(address, home, *names, **more):
    """In a process of its own: the hub's address is read at import."""
    return subprocess.run(
        [sys.executable, "-c", READ, *names],
        cwd=ROOT, env=environment(address, home, **more), capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The four benches' files with their publishers' columns."""
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
    for name, bench in BENCHES.items():
        path = folder / bench.source.split("/", 2)[2]
        path.parent.mkdir(exist_ok=True)
        if path.suffix == ".parquet":
            parquet.write_table(pyarrow.Table.from_pylist(rows[name]), path)
        else:
            write_json_lines(path, rows[name])
    return folder


def test_named_benches_come_from_their_pinned_revision_in_one_schema(published, tmp_path):
    with serve(published) as address:
        finished = read(address, tmp_path, *BENCHES)
    assert finished.returncode == 0, finished.stderr
    lines = [json.loads(line) for line in finished.stdout.splitlines()]
    for bench, (file, _) in zip(BENCHES.values(), lines, strict=True):
        assert bench.revision in file
    questions = [rows for _, rows in lines]
    assert [row["turns"] for rows in questions for row in rows] == [
        ["Write.", "Again."], ["Add.", "Halve."],
        *[["Complete the code I provided.\n\ndef f():\n"]] * 2,
        *[["How many?"]] * 2,
        ["Sort.\n\n3 1 2"], ["Greet."],
    ]  # fmt: skip
    assert [rows[0]["question_id"] for rows in questions] == [81, 0, 0, 0]
    categories = [rows[0]["category"] for rows in questions]
    assert categories == ["writing", "code", "math", "instructions"]


def test_without_the_hub_the_message_says_how_to_give_a_file(published, tmp_path):
    finished = read("http://127.0.0.1:9", tmp_path, "gsm8k", HF_HUB_OFFLINE="1")
    assert finished.returncode == 1
    message = finished.stderr.strip().splitlines()[-1]
    assert re.match(
        "error: evaluate.bench = gsm8k: the hub at .* cannot be reached.*set evaluate.bench to a "
        "file of these questions, JSON lines with question_id, category and a list",
        message,
    ), finished.stderr


def test_questions_of_a_file_are_spread_evenly(tmp_path):
    rows = [{"question_id": n, "category": "", "turns": [f"question {n}"]} for n in range(10)]
    path = write_json_lines(tmp_path / "bench.jsonl", rows)
    assert [row["question_id"] for row in read_bench(str(path), 4)] == [0, 2, 5, 7]
    assert read_bench(str(path), 99) == rows


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
        read_bench(str(path), 1)


def test_neither_a_file_nor_a_name():
    with pytest.raises(
        InputError, match="no such file, nor a bench of that name; give one of mt_b"
    ):
        bench_file("mtbench")
