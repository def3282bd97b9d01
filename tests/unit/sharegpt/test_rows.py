"""Every form of file gives the same rows; what is none of them is named with its place."""

import gzip
import json
import os
import re
import tracemalloc
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from eagle.errors import InputError
from eagle.files import read_json
from eagle.sharegpt import rows
from eagle.sharegpt.rows import batches_of_rows
from eagle.sharegpt.turns import Rejected
from eagle.tracking import Progress
from tests.tiny import make_conversations


def read(path: Path) -> list:
    with Progress("t", 1, "MB") as progress:
        found = [row for batch in batches_of_rows(path, progress) for row in batch]
    assert progress.done == pytest.approx(path.stat().st_size / 1e6)
    return found


def as_parquet(content: list[dict], path: Path) -> None:
    parquet.write_table(pyarrow.Table.from_pylist(content), path, row_group_size=7)


def as_lines(content: list[dict]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content).encode()


CONTENT = [
    *make_conversations(40),
    {"id": "é🙂", "conversations": [{"from": "人", "value": '\\"'}]},
]
FORMS = {
    "list": json.dumps(CONTENT).encode(),
    "pretty list": json.dumps(CONTENT, indent=2, ensure_ascii=False).encode(),
    "lines": as_lines(CONTENT),
    "lines with a mark in front": b"\xef\xbb\xbf" + as_lines(CONTENT).replace(b"\n", b"\r\n\r\n"),
    "gzip": gzip.compress(as_lines(CONTENT)),
    "two gzip members": gzip.compress(as_lines(CONTENT[:9])) + gzip.compress(as_lines(CONTENT[9:])),
    "zstd": pyarrow.compress(json.dumps(CONTENT).encode(), "zstd", asbytes=True),
}


@pytest.mark.parametrize("chunk", [1, 7, 2**22])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_in_pieces_of_any_size(tmp_path, monkeypatch, form, chunk):
    monkeypatch.setattr(rows, "CHUNK", chunk)
    path = tmp_path / "data"
    path.write_bytes(FORMS[form])
    assert read(path) == CONTENT


def test_parquet(tmp_path):
    as_parquet(CONTENT, tmp_path / "data.parquet")
    assert read(tmp_path / "data.parquet") == CONTENT


@pytest.mark.parametrize(
    "text",
    [
        "<html><body>404</body></html>", "nonsense", "[1, 2", "[1, 2,", '[{"a": "b', "[", "[,",
        "[1 2]", "[1]\n[2]", "[1] x", '[{"a": 1,}]', '[\n{"a": 1},\n{"a": tru}]', '["\t"]',
        '["a", "\\ud83"]', '["a", "\\x"]', "[1, 2]]",
    ],
)  # fmt: skip
@pytest.mark.parametrize("chunk", [1, 2**22])
def test_a_damaged_list_is_named_as_the_plain_parser_names_it(tmp_path, monkeypatch, text, chunk):
    monkeypatch.setattr(rows, "CHUNK", chunk)
    path = tmp_path / "data.json"
    path.write_text(text)
    with pytest.raises(InputError) as expected:
        read_json(path)
    with pytest.raises(InputError) as found:
        read(path)
    place = r"line \d+, column \d+"
    assert re.search(place, str(found.value))[0] == re.search(place, str(expected.value))[0]
    assert ("cut off" in str(found.value)) == ("cut off" in str(expected.value))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "the file is empty"),
        (b" \n\t " * 9, "the file is empty"),
        (b'["\xff"]', "not UTF-8 text .invalid start byte at byte 2"),
        (b'["' + b"a" * 90 + b'\xc3"]', "not UTF-8 text .* at byte 92"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[" + b"9" * 5000 + b"]", "thousands of digits"),
        (gzip.compress(b"1\n" * 99, mtime=0)[:-9], "the gzip data is damaged or cut off"),
        (pyarrow.compress(b"1\n" * 99, "zstd", asbytes=True)[:-3], "the zstd data is damaged"),
        (b"\x1f\x8b nothing", "the gzip data is damaged"),
        (b"PAR1 nothing", "not readable as Parquet"),
        (b'{"a": 1}\n{"a": tru}\n', "line 2, column 7: Expecting value"),
    ],
)
def test_other_damage_is_one_message(tmp_path, monkeypatch, content, expected):
    monkeypatch.setattr(rows, "CHUNK", 50)
    path = tmp_path / "data.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=expected):
        read(path)


LONG_ROWS = [
    {"a": "b" * 2000},
    {"a": ['"]}', "\\", '\\"', "é🙂\n[{"] * 200},
    [[[]] * 900, {"": {}}],
    "\\" * 999 + '"',
    {"\\" * 801: "]" * 999},
]


@pytest.mark.parametrize("chunk", [1, 7, 2**22])
@pytest.mark.parametrize("lines", [False, True])
def test_a_row_that_is_too_long_is_passed_over(tmp_path, monkeypatch, chunk, lines):
    monkeypatch.setattr(rows, "LONGEST_ROW", 1000)
    monkeypatch.setattr(rows, "CHUNK", chunk)
    content = [good for row in LONG_ROWS for good in ({"a": "b" * 900}, row)] + [{"c": 1}]
    path = tmp_path / "data.json"
    path.write_bytes(as_lines(content) if lines else json.dumps(content, indent=1).encode())
    found = read(path)
    assert [str(row) if isinstance(row, Rejected) else row for row in found] == [
        "row too long: more than 1,000 characters" if row in LONG_ROWS else row for row in content
    ]


@pytest.mark.parametrize("end", ["", '"', "]}", "[" * 90_000])
def test_a_row_without_end_is_cut_off(tmp_path, monkeypatch, end):
    monkeypatch.setattr(rows, "LONGEST_ROW", 1000)
    monkeypatch.setattr(rows, "CHUNK", 100)
    path = tmp_path / "data.json"
    path.write_text('[{"a": [' + '"b", {"c": [' * 20 + '"' + "d" * 5000 + end)
    with pytest.raises(InputError, match="a row without end; the file seems to be cut off"):
        read(path)
    path.write_text("[1" + "0" * 5000)
    with pytest.raises(InputError, match="column 2: a number or name without end"):
        read(path)


@pytest.mark.parametrize("form", ["text", "objects", "parquet"])
def test_a_long_row_takes_little_memory(tmp_path, monkeypatch, form):
    monkeypatch.setattr(rows, "LONGEST_ROW", 20_000)
    monkeypatch.setattr(rows, "CHUNK", 10_000)
    path = tmp_path / "data"
    texts = {"text": "x" * 2_000_000, "objects": [{}] * 100_000, "parquet": "x" * 2_000_000}
    row = {"id": "1", "conversations": [{"from": "human", "value": texts[form]}]}
    if form == "parquet":
        as_parquet([*CONTENT[:1], row], path)
    else:
        path.write_text(json.dumps(row))
    tracemalloc.start()
    found = read(path)
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(found[-1], Rejected)
    assert peak < 3_000_000  # decoded, the row of objects takes 7 MB


def test_a_parquet_column_that_python_cannot_hold_matters_only_where_it_is_used(tmp_path):
    far = pyarrow.array([2**30], pyarrow.date32())
    messages = pyarrow.array([[{"role": "user", "content": "Hi"}]])
    path = tmp_path / "data.parquet"
    parquet.write_table(pyarrow.table({"created": far, "messages": messages}), path)
    # that there is a value can be counted
    assert read(path) == [{"created": True, "messages": [{"role": "user", "content": "Hi"}]}]
    parquet.write_table(pyarrow.table({"id": far, "messages": messages}), path)
    with pytest.raises(InputError, match="not readable as Parquet"):
        read(path)


def test_what_is_no_file_is_named(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read(tmp_path / "absent.json")
    with pytest.raises(InputError, match="is a folder"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe.json")
    for path in (tmp_path / "pipe.json", Path("/dev/zero")):
        with pytest.raises(InputError, match=f"{path}: is a pipe or a device, expected a file"):
            read(path)
