"""Read conversations of ShareGPT, apply the rules to them, and select."""

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from eagle.config import ShareGptSelection, WeightedSource
from eagle.errors import InputError
from eagle.files import check_file
from eagle.parallel import ordered_map
from eagle.sharegpt.conversations import Rejections, is_unicode, regularize
from eagle.sharegpt.lines_on_disk import LinesOnDisk
from eagle.sharegpt.overlap import QuestionSearch, near_duplicates, signatures, words_of
from eagle.sharegpt.rows import batches_of_rows
from eagle.sharegpt.sources import Source, sources_of
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
        self.sources: dict[str, dict[str, int]] = {}
        """How many conversations of each source are usable, and taken by its weight."""

    @property
    def available(self) -> int:
        """The number of conversations that can be used, near duplicates left out."""
        return len(self.usable) - self.rejections.counts["near duplicate"]

    @property
    def not_taken(self) -> int:
        """How many of them the weights of their sources leave out."""
        return sum(counts["usable"] - counts["taken"] for counts in self.sources.values())

    @property
    def not_selected(self) -> int:
        """How many of the others `n` or `frac` leaves out."""
        return self.available - self.not_taken - len(self.selected)

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
    source: str | Sequence[WeightedSource],
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
            gzip or zstd), a folder of them, or hub:OWNER/NAME/FILE; or several with weights.
        revision: hub commit; unused for local files.
        scratch: a folder on a disk with space for the conversations.
        processes: processes that apply the rules.
        progress_seconds: seconds between progress lines.

    Raises:
        InputError: the source is absent or damaged, or has no usable conversation; or the
            evaluation questions cannot be read.
    """
    sources = sources_of(source, revision)
    names = ", ".join(one.name for one in sources)
    files, of_file = [], {}
    for number, one in enumerate(sources):
        for file in one.files():
            shown = _shown(file, one, alone=len(sources) == 1)
            if shown in of_file:
                raise InputError(f"{shown}: is in two of the sources; leave one of them out")
            files.append((file, shown))
            of_file[shown] = number
    size = sum(check_file(file) for file, _ in files)
    prepared = Prepared(scratch)
    first_with_digest: dict[bytes, int] = {}
    minhashes: list[np.ndarray] = []
    rows_read = 0
    with Progress("prepare", size / 1e6, "MB", progress_seconds) as progress:
        batches = ordered_map(
            partial(Rules, selection),
            chain.from_iterable(
                _rows(file, name, selection.roles, progress) for file, name in files
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
            f"{names}: no usable conversation; "
            + (f"all {rows_read:,} rows rejected, {prepared.rejections}"
               if rows_read else "the list is empty")
        )  # fmt: skip
    taken = _take_shares(prepared, unique, sources, of_file, selection.shuffle_seed)
    if not taken:
        raise InputError(f"{names}: no conversation is taken; raise the weights in sharegpt.source")
    Random(selection.shuffle_seed).shuffle(taken)
    prepared.selected = taken[: _selection_size(len(taken), selection, names)]
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
    """A note on what is taken of several sources, and what `n` or `frac` leaves out, for the line
    that ends a command; may be empty."""
    shares = [
        f"{counts['taken']:,} of {counts['usable']:,} of {name}"
        for name, counts in prepared.sources.items()
    ]
    by_source = f"taken: {', '.join(shares)}" if len(shares) > 1 else ""
    if not prepared.not_selected:
        return by_source
    asked = f"n = {selection.n}" if selection.n is not None else f"frac = {selection.frac}"
    left_out = (
        f"{prepared.not_selected:,} of {prepared.available - prepared.not_taken:,} usable "
        f"conversations left out by {asked}"
    )
    return "; ".join(filter(None, (by_source, left_out)))


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
        "sources": prepared.sources,
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


def _shown(file: Path, source: Source, alone: bool) -> str:
    """How a file is called in messages and in the list of rejected rows."""
    if alone:
        return source.file_within(file)
    return source.name if source.on_hub else str(file)


def _take_shares(
    prepared: Prepared,
    numbers: list[int],
    sources: list[Source],
    of_file: dict[str, int],
    seed: int,
) -> list[int]:
    """Of each source, the share that its weight says; its other conversations are left out.

    What is taken of a source depends on its own conversations alone, not on the other sources.
    """
    by_source: list[list[int]] = [[] for _ in sources]
    for number in numbers:
        by_source[of_file[prepared.origins[number][0]]].append(number)
    taken: set[int] = set()
    for source, own in zip(sources, by_source, strict=True):
        count = round(source.weight * len(own))
        taken.update(Random(f"{seed} {source.name}").sample(own, count))
        prepared.sources[source.name] = {"usable": len(own), "taken": count}
    return [number for number in numbers if number in taken]


def _rows(
    file: Path, name: str, roles: Mapping[str, str], progress: Progress
) -> Iterator[list[Row]]:
    """Read a file's rows in batches."""
    number = 0
    for batch in batches_of_rows(file, progress):
        rows = []
        for content in batch:
            try:
                if isinstance(content, Rejected):
                    raise content
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
