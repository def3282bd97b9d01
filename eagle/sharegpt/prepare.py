"""Read conversations of ShareGPT, apply the rules to them, and select."""

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from eagle.config import ShareGptSelection
from eagle.errors import InputError
from eagle.files import LinesOnDisk, check_file
from eagle.hub import fetch_dataset_file
from eagle.parallel import ordered_map
from eagle.sharegpt.conversations import Rejections, is_unicode, regularize
from eagle.sharegpt.overlap import QuestionSearch, near_duplicates, signatures, words_of
from eagle.sharegpt.rows import batches_of_rows
from eagle.sharegpt.sources import local_files
from eagle.sharegpt.turns import Rejected, RowTurns, turns_of
from eagle.system_prompts import system_turn
from eagle.tracking import Progress

PARALLEL_BYTES = 2**24  # a smaller source is finished before other processes have started


class Row(NamedTuple):
    """A row as it was read, before the rules."""

    file: str
    number: int
    """Index in the file."""
    id: Any
    """As it stands in the row; None without one."""
    read: RowTurns | None
    problem: str | None = None
    """Why the row cannot be used, if that was found while reading it."""


class CheckedRow(NamedTuple):
    """A row after the rules that need no other row."""

    file: str
    number: int
    """Index in the file."""
    id: str | int | None
    rejected: str | None
    """The reason if the row is rejected; the fields below are then empty."""
    messages: bytes = b""
    """JSON of the list of messages."""
    changes: tuple[str, ...] = ()
    """Names of the changes that made the conversation regular."""
    fields_not_read: tuple[str, ...] = ()
    """Names of the fields that are not understood."""
    assistant_turns: int = 0
    assistant_characters: int = 0
    signature: np.ndarray | None = None
    """MinHash signature, uint32 [PERMUTATIONS]; None if near duplicates are not rejected."""


class Prepared:
    """The result of `prepare`.

    `usable` and `rejected` are JSON lines on disk; `selected` is the numbers of the usable lines
    that were selected, in shuffled order.
    """

    def __init__(self, scratch: Path):
        self.usable, self.rejected = LinesOnDisk(scratch), LinesOnDisk(scratch)
        self.selected: list[int] = []
        self.assistant_turns, self.assistant_characters = array("q"), array("q")
        self.changes: Counter[str] = Counter()
        self.rejections = Rejections()
        self.fields_not_read: Counter[str] = Counter()
        """Number of usable rows by the name of a field that is not understood."""
        self.origins: list[tuple[str, int, str | int]] = []
        """File, row and id of each usable conversation."""

    @property
    def available(self) -> int:
        """The number of conversations that can be used, near duplicates left out."""
        return len(self.usable) - self.rejections.counts["near duplicate"]

    @property
    def not_selected(self) -> int:
        """How many of them `n` or `frac` leaves out."""
        return self.available - len(self.selected)

    def accept(self, row: CheckedRow) -> None:
        """Add a usable conversation; without an id of its own, its id is its number."""
        identity = len(self.usable) if row.id is None else row.id
        start = f'{{"id": {json.dumps(identity, ensure_ascii=False)}, "messages": '
        self.usable.append(start.encode() + row.messages + b"}")
        self.origins.append((row.file, row.number, identity))
        self.assistant_turns.append(row.assistant_turns)
        self.assistant_characters.append(row.assistant_characters)
        self.changes.update(row.changes)
        self.fields_not_read.update(row.fields_not_read)

    def reject(self, file: str, number: int, reason: str) -> None:
        """Add a rejected row."""
        row = {"file": file, "row": number, "reason": reason}
        self.rejected.append(json.dumps(row).encode())
        self.rejections.add(reason, f"{file}, row {number}")


def prepare(
    source: str,
    revision: str | None,
    selection: ShareGptSelection,
    scratch: Path,
    processes: int = 1,
    progress_seconds: float = 10.0,
) -> Prepared:
    """Read a ShareGPT source, make its conversations regular, shuffle, and take `n` or `frac`.

    The result depends on the source and the selection, not on the number of processes.

    Args:
        source: a file of conversations (JSON, JSON lines or Parquet; JSON also compressed with
            gzip or zstd), a folder of them, or hub:OWNER/NAME/FILE.
        revision: hub commit; unused for local files.
        scratch: a folder on a disk with space for the conversations.
        processes: processes that apply the rules.
        progress_seconds: seconds between progress lines.

    Raises:
        InputError: the source is absent or damaged, or has no usable conversation; or the
            evaluation questions cannot be read.
    """
    files = _files(source, revision)
    size = sum(check_file(file) for file in files)
    prepared = Prepared(scratch)
    first_with_digest: dict[bytes, int] = {}
    minhashes: list[np.ndarray] = []
    rows_read = 0
    with Progress("prepare", size / 1e6, "MB", progress_seconds) as progress:
        batches = ordered_map(
            partial(Rules, selection),
            chain.from_iterable(
                _rows(file, _name(file, source), selection.roles, progress) for file in files
            ),
            processes if size > PARALLEL_BYTES else 1,
        )
        for row in chain.from_iterable(batches):
            rows_read += 1
            reason = row.rejected
            if reason is None and selection.drop_duplicates:
                digest = hashlib.blake2b(row.messages, digest_size=16).digest()
                number = first_with_digest.setdefault(digest, len(prepared.usable))
                if number < len(prepared.usable):
                    reason = f"exact duplicate: of {prepared.origins[number][2]!r}"
            if reason is not None:
                prepared.reject(row.file, row.number, reason)
                continue
            prepared.accept(row)
            if row.signature is not None:
                minhashes.append(row.signature)
    duplicates: dict[int, int] = {}
    if minhashes:
        duplicates = near_duplicates(np.stack(minhashes), selection.near_duplicate_similarity)
    for number, earlier in duplicates.items():
        file, row_number, _identity = prepared.origins[number]
        prepared.reject(file, row_number, f"near duplicate: of {prepared.origins[earlier][2]!r}")
    unique = [number for number in range(len(prepared.usable)) if number not in duplicates]
    assert rows_read == len(unique) + len(prepared.rejected), "a row has disappeared"
    if not unique:
        raise InputError(
            f"{source}: no usable conversation; "
            + (f"all {rows_read:,} rows rejected, {prepared.rejections}"
               if rows_read else "the list is empty")
        )  # fmt: skip
    Random(selection.shuffle_seed).shuffle(unique)
    prepared.selected = unique[: _selection_size(len(unique), selection, source)]
    return prepared


class Rules:
    """The rules that need no other row, applied to batches of rows."""

    def __init__(self, selection: ShareGptSelection):
        self.selection = selection
        self.system_turn = system_turn(selection.system_prompt)
        self.questions = (
            None if selection.bench is None
            else QuestionSearch(Path(selection.bench), selection.leak_words)
        )  # fmt: skip

    def __call__(self, rows: list[Row]) -> list[CheckedRow]:
        checked, words = [], []
        for row in rows:
            try:
                checked_row, row_words = self._check(row)
                words.append(row_words)
            except Rejected as reason:
                checked_row = CheckedRow(row.file, row.number, None, str(reason))
            checked.append(checked_row)
        if words and self.selection.near_duplicate_similarity is not None:
            minhashes = iter(signatures(words))
            checked = [
                row if row.rejected else row._replace(signature=next(minhashes)) for row in checked
            ]
        return checked

    def _check(self, row: Row) -> tuple[CheckedRow, list[bytes]]:
        """The row as a conversation, and its words; no words if no rule needs them."""
        if row.read is None:
            raise Rejected(row.problem)
        messages, changes = regularize(row.read.turns, self.selection)
        words: list[bytes] = []
        if self.questions is not None or self.selection.near_duplicate_similarity is not None:
            words = words_of([m["content"] for m in messages if m["role"] != "system"])
        if self.questions is not None and (match := self.questions.first_match(words)):
            raise Rejected(f"holds a bench prompt: {match}")
        if self.system_turn and messages[0]["role"] != "system":
            messages = self.system_turn + messages
            changes.append("system prompt put in front")
        identity = row.id if _is_identity(row.id) else None
        if identity is None and row.id is not None:
            changes.append("id left out, which is neither text nor a whole number")
        replies = [m["content"] for m in messages if m["role"] == "assistant"]
        checked_row = CheckedRow(
            row.file, row.number, identity, None,
            json.dumps(messages, ensure_ascii=False).encode(), tuple(changes),
            tuple(row.read.fields_not_read), len(replies), sum(map(len, replies)),
        )  # fmt: skip
        return checked_row, words


def named_selection(prepared: Prepared, selection: ShareGptSelection) -> str:
    """A note on what `n` or `frac` leaves out, for the line that ends a command; may be empty."""
    if not prepared.not_selected:
        return ""
    asked = f"n = {selection.n}" if selection.n is not None else f"frac = {selection.frac}"
    return (
        f"{prepared.not_selected:,} of {prepared.available:,} usable conversations left out by "
        f"{asked}"
    )


def statistics(prepared: Prepared, splits: dict[str, list[int]]) -> dict:
    """Counts of rows by what happened to them, and counts and lengths of the conversations.

    Args:
        splits: for each split, the numbers of its usable conversations.
    """
    table = pd.concat(
        pd.DataFrame(
            {
                "turns": np.asarray(prepared.assistant_turns)[numbers],
                "assistant_characters": np.asarray(prepared.assistant_characters)[numbers],
            }
        ).assign(split=name)
        for name, numbers in splits.items()
    )
    lengths = table["assistant_characters"].describe(percentiles=[0.1, 0.5, 0.9])
    rejected = len(prepared.rejected)
    return {
        "read": prepared.available + rejected,
        "kept": prepared.available,
        "not_selected": prepared.not_selected,
        "changes": dict(sorted(prepared.changes.items())),
        "rejected": dict(sorted(prepared.rejections.counts.items())),
        "fields_not_read": dict(sorted(prepared.fields_not_read.items())),
        "conversations": table.groupby("split").size().to_dict(),
        "assistant_turns": table.groupby("split")["turns"].sum().to_dict(),
        "assistant_characters": {
            key: round(float(lengths[key]), 1)
            for key in ("mean", "min", "10%", "50%", "90%", "max")
        },
    }


def _files(source: str, revision: str | None) -> list[Path]:
    """The files of a source, of a folder's subfolders too, in the order of their names."""
    if source.startswith("hub:"):
        return [fetch_dataset_file(source, revision, f"sharegpt.source = {source}")]
    return local_files(source)


def _name(file: Path, source: str) -> str:
    """A file's path within the folder that is the source."""
    inside = file.is_relative_to(source) and file != Path(source)
    return str(file.relative_to(source)) if inside else file.name


def _rows(
    file: Path, name: str, roles: Mapping[str, str], progress: Progress
) -> Iterator[list[Row]]:
    """Read a file's rows in batches."""
    number = 0
    for batch in batches_of_rows(file, progress):
        rows = []
        for content in batch:
            try:
                read = turns_of(content, roles)
                rows.append(Row(name, number, content.get("id"), read))
            except Rejected as reason:
                rows.append(Row(name, number, None, None, str(reason)))
            number += 1
        yield rows


def _is_identity(found: Any) -> bool:
    """Whether a row's id can be written: text or a whole number."""
    if isinstance(found, str):
        return is_unicode(found)
    return isinstance(found, int) and not isinstance(found, bool)


def _selection_size(available: int, selection: ShareGptSelection, source: str) -> int:
    if selection.n is None:
        return max(1, round(available * selection.frac))
    if selection.n > available:
        raise InputError(
            f"n = {selection.n}: {source} has only {available} usable conversations; "
            "lower it or give frac"
        )
    return selection.n
