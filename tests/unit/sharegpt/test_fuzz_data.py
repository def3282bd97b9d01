"""Mutated files of conversations, prepared and tokenised: every row is accounted for, or the run
ends with one clear message."""

import functools
import gzip
import json
import tempfile
from pathlib import Path

import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from eagle.config import ShareGptSelection
from eagle.errors import InputError
from eagle.files import write_json
from eagle.sharegpt.conversations import is_unicode, named_fields
from eagle.sharegpt.prepare import prepare, statistics
from eagle.tokens.tokenization import TokenizeLines
from eagle.tokens.tokenizer import load_tokenizer
from tests import tiny
from tests.tiny import MARKED

TEXTS = st.text(st.characters(exclude_categories=()), max_size=12)  # lone surrogates too
NUMBERS = st.integers() | st.floats() | st.sampled_from([10**400, -(2**63) - 1, True, None])
ANYTHING = st.recursive(
    NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
ROLES = st.sampled_from(
    ["human", "gpt", "user", "assistant", "system", "GPT"] * 4 + ["alien", None]
)
PARTS = st.lists(
    st.fixed_dictionaries({"type": st.sampled_from(["text", "image_url", 5]), "text": TEXTS}),
    max_size=2,
)
CONTENT = st.just("fine") | TEXTS | PARTS | ANYTHING
FIELDS = {  # beside role and content
    name: st.none() | st.sampled_from([0, 1, True, "", "[]", [], {}]) | ANYTHING
    for name in (
        "value", "weight", "train", "tool_calls", "images", "reasoning", "thinking", "name", "x y"
    )
}  # fmt: skip
TURNS = st.lists(
    st.fixed_dictionaries({"from": ROLES, "value": CONTENT})
    | st.fixed_dictionaries({"role": ROLES, "content": CONTENT})
    | st.fixed_dictionaries({"role": ROLES, "content": CONTENT}, optional=FIELDS)
    | ANYTHING,
    max_size=4,
)
GOOD_ROW = st.builds(
    lambda identity, text: {
        "id": identity,
        "conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": text}],
    },
    st.integers() | TEXTS,
    TEXTS,
)
ODD_ROW = st.fixed_dictionaries(
    {"id": ANYTHING},
    optional={
        "conversations": TURNS, "messages": TURNS, "conversation": TURNS | ANYTHING,
        "system": CONTENT, "system_prompt": TEXTS, "tools": ANYTHING, "weight": ANYTHING,
        "\ud83d": ANYTHING,
    },
)  # fmt: skip
ROWS = st.lists(GOOD_ROW | GOOD_ROW | ODD_ROW | ANYTHING, max_size=6)


@st.composite
def files(draw) -> tuple[bytes, int | None]:
    """A file's bytes, and its number of rows where nothing has damaged them."""
    rows = draw(ROWS)
    if draw(st.integers(0, 3)):  # most files have a row that can be used
        rows.insert(0, draw(GOOD_ROW))
    if draw(st.booleans()):
        text = json.dumps(rows, indent=draw(st.sampled_from([None, 1])))
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows)
    content, whole = text.encode(), True
    damage = draw(
        st.sampled_from(["none"] * 8 + ["bytes", "bytes", "cut", "deep", "digits", "html"])
    )
    if damage == "bytes":
        for at in draw(st.lists(st.integers(0, max(0, len(content) - 1)), min_size=1, max_size=3)):
            content = content[:at] + draw(st.binary(max_size=2)) + content[at + 1 :]
    elif damage == "cut":
        content = content[: draw(st.integers(0, len(content)))]
    elif damage == "deep":
        depth = draw(st.sampled_from([50, 900, 100_000]))
        content = b"[" * depth + content + b"]" * depth
    elif damage == "digits":
        content = content.replace(b"x", b'x", "n": ' + b"7" * 5000 + b', "y": "', 1)
    elif damage == "html":
        content = b"<!DOCTYPE html><html>" + content
    whole = damage == "none"
    packed = draw(st.sampled_from(["plain"] * 4 + ["gzip", "zstd"]))
    if packed == "gzip":
        content = gzip.compress(content, mtime=0)
    elif packed == "zstd":
        content = pyarrow.compress(content, "zstd", asbytes=True)
    if packed != "plain" and draw(st.integers(0, 3)) == 0:
        content, whole = content[: draw(st.integers(0, len(content)))], False
    return content, len(rows) if whole else None


@st.composite
def parquet_files(draw) -> tuple[bytes, int | None]:
    """The same of rows that have one schema, as Parquet's must."""
    texts = st.none() | TEXTS.filter(is_unicode)
    turns = st.fixed_dictionaries({"from": ROLES, "value": texts})
    rows = [draw(GOOD_ROW.filter(lambda row: is_unicode(json.dumps(row, ensure_ascii=False))))]
    rows[0]["id"] = str(rows[0]["id"])
    rows += draw(
        st.lists(
            st.fixed_dictionaries({"id": texts, "conversations": st.none() | st.lists(turns)}),
            max_size=5,
        )
    )
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    content = sink.getvalue().to_pybytes()
    if draw(st.booleans()):
        return content, len(rows)
    for at in draw(st.lists(st.integers(4, len(content) - 1), min_size=1, max_size=4)):
        content = content[:at] + draw(st.binary(max_size=2)) + content[at + 1 :]
    return content, None


SELECTIONS = st.builds(
    functools.partial(tiny.settings, "sharegpt", n=None),
    frac=st.sampled_from([0.5, 1.0]),
    bench=st.none(),
    drop_leading_reply=st.booleans(),
    require_alternation=st.booleans(),
    unusable_turn=st.sampled_from(["reject", "cut"]),
    maximum_turn_characters=st.sampled_from([None, 5]),
    drop_duplicates=st.booleans(),
    near_duplicate_similarity=st.sampled_from([None, 0.8]),
)


def prepare_and_tokenize(
    content: bytes, rows: int | None, selection: ShareGptSelection, encode: TokenizeLines
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data.json").write_bytes(content)
        try:
            prepared = prepare(str(folder / "data.json"), None, selection, folder / "scratch")
        except InputError as error:
            assert "data.json" in str(error)
            assert "\n" not in str(error) and len(str(error)) < 1000
            return
        near = prepared.rejections.counts["near duplicate"]
        if rows is not None:
            assert len(prepared.usable) - near + len(prepared.rejected) == rows
        prepared.usable.write(folder / "kept.jsonl", prepared.selected)
        prepared.rejected.write(folder / "rejected.jsonl", range(len(prepared.rejected)))
        for line in (folder / "rejected.jsonl").open(encoding="utf-8"):
            assert set(json.loads(line)) == {"file", "row", "reason"}
        lines = list(enumerate((folder / "kept.jsonl").read_bytes().splitlines(), start=1))
        lines = [(number, line) for number, line in lines if line.strip()]
        part = encode.encode(encode.render(lines))
        assert part.counts["documents"] + part.counts["documents_without_reply"] == len(lines)
        assert len(lines) == len(prepared.selected)
        counts = statistics(prepared, {"all": prepared.selected})
        write_json(folder / "statistics.json", counts)
        assert "\n" not in named_fields(prepared.fields_not_read)


@pytest.fixture(scope="module")
def encode(marked_verifier) -> TokenizeLines:
    return TokenizeLines(load_tokenizer(marked_verifier), MARKED, 60, Path("kept.jsonl"))


def fuzz(examples: int):
    return settings(
        max_examples=examples, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


@fuzz(500)
@given(file=files() | parquet_files(), selection=SELECTIONS)
def test_mutated_files_end_well(encode, file, selection):
    prepare_and_tokenize(*file, selection, encode)


@pytest.mark.long
@fuzz(10_000)
@given(file=files() | parquet_files(), selection=SELECTIONS)
def test_ten_thousand_mutated_files_end_well(encode, file, selection):
    prepare_and_tokenize(*file, selection, encode)
