"""ShareGPT's conversations: read, made regular, sifted, chosen."""

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import pandas as pd

from eagle.config import ShareGptSelection
from eagle.errors import InputError
from eagle.files import LinesOnDisk, check_file
from eagle.hub import fetch_dataset_file
from eagle.parallel import ordered_map
from eagle.sharegpt.conversations import OtherSchema, Rejected, Turn, is_unicode, regular, turns_of
from eagle.sharegpt.overlap import BenchPrompts, near_duplicates, signatures, words_of
from eagle.sharegpt.rows import batches_of_rows
from eagle.system_prompts import system_turn
from eagle.tracking import Progress

PATTERNS = ("*.json", "*.jsonl", "*.parquet", "*.json.*", "*.jsonl.*")
WORTH_PROCESSES = 2**24  # bytes: less is done before other processes have started


class Row(NamedTuple):
    """A row as its file has it."""

    file: str
    number: int
    id: str | int | None
    turns: list[Turn]
    problem: str | None = None
    """Why it cannot be used, where reading has shown it."""


class Judged(NamedTuple):
    """A row after the rules that look at nothing but the row."""

    file: str
    number: int
    id: str | int | None
    rejected: str | None
    messages: bytes = b""
    """JSON of the conversation."""
    changes: tuple[str, ...] = ()
    assistant_turns: int = 0
    assistant_characters: int = 0
    signature: np.ndarray | None = None
    """uint32 [PERMUTATIONS], where near duplicates are looked for."""


class Prepared:
    """Usable conversations on disk, the chosen ones' numbers in the shuffle's order, and every
    other row with its reason."""

    def __init__(self, scratch: Path):
        self.usable, self.rejected = LinesOnDisk(scratch), LinesOnDisk(scratch)
        self.chosen: list[int] = []
        self.assistant_turns, self.assistant_characters = array("q"), array("q")
        self.changes: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.first_reason: str | None = None
        self.origins: list[tuple[str, int, str | int]] = []
        """File, row and id of the usable conversations."""

    def keep(self, judged: Judged) -> None:
        identity = len(self.usable) if judged.id is None else judged.id
        start = f'{{"id": {json.dumps(identity, ensure_ascii=False)}, "messages": '
        self.usable.append(start.encode() + judged.messages + b"}")
        self.origins.append((judged.file, judged.number, identity))
        self.assistant_turns.append(judged.assistant_turns)
        self.assistant_characters.append(judged.assistant_characters)
        self.changes.update(judged.changes)

    def reject(self, file: str, number: int, reason: str) -> None:
        row = {"file": file, "row": number, "reason": reason}
        self.rejected.append(json.dumps(row).encode())
        self.reasons[reason.split(":")[0]] += 1
        self.first_reason = self.first_reason or reason


def prepare(
    source: str,
    revision: str | None,
    selection: ShareGptSelection,
    scratch: Path,
    processes: int = 1,
    progress_seconds: float = 10.0,
) -> Prepared:
    """Read a ShareGPT source, make its conversations regular, shuffle, and take `n` or `frac`.

    The result depends on source and selection alone, not on the number of processes.

    Args:
        source: a file of conversations (JSON, JSON lines or Parquet; JSON also packed with gzip
            or zstd), a folder of them, or hub:OWNER/NAME/FILE.
        revision: hub commit; unused for local files.
        scratch: a folder with room for the conversations.

    Raises:
        InputError: the source is absent, not what it seems to be, in another schema, has an
            unknown role, or holds no usable conversation; or the bench cannot be read.
    """
    files = _files(source, revision)
    size = sum(check_file(file) for file in files)
    prepared = Prepared(scratch)
    first_with: dict[bytes, int] = {}
    signed: list[np.ndarray] = []
    read = 0
    with Progress("prepare", size / 1e6, "MB", progress_seconds) as progress:
        judged_rows = ordered_map(
            partial(Rules, selection),
            chain.from_iterable(_rows(file, selection.roles, progress) for file in files),
            processes if size > WORTH_PROCESSES else 1,
        )
        for judged in chain.from_iterable(judged_rows):
            read += 1
            reason = judged.rejected
            if reason is None and selection.drop_duplicates:
                digest = hashlib.blake2b(judged.messages, digest_size=16).digest()
                number = first_with.setdefault(digest, len(prepared.usable))
                if number < len(prepared.usable):
                    reason = f"exact duplicate: of {prepared.origins[number][2]!r}"
            if reason is not None:
                prepared.reject(judged.file, judged.number, reason)
                continue
            prepared.keep(judged)
            if judged.signature is not None:
                signed.append(judged.signature)
    repeats: dict[int, int] = {}
    if signed:
        repeats = near_duplicates(np.stack(signed), selection.near_duplicate_similarity)
    for number, earlier in repeats.items():
        file, row, _identity = prepared.origins[number]
        prepared.reject(file, row, f"near duplicate: of {prepared.origins[earlier][2]!r}")
    kept = [number for number in range(len(prepared.usable)) if number not in repeats]
    assert read == len(kept) + len(prepared.rejected), "a row has disappeared"
    if not kept:
        raise InputError(
            f"{source}: no usable conversation; "
            + (f"all {read} rejected, the first because: {prepared.first_reason}"
               if read else "the list is empty")
        )  # fmt: skip
    Random(selection.shuffle_seed).shuffle(kept)
    prepared.chosen = kept[: _how_many(len(kept), selection, source)]
    return prepared


class Rules:
    """The rules that look at one conversation alone, for batches of rows."""

    def __init__(self, selection: ShareGptSelection):
        self.selection = selection
        self.opening = system_turn(selection.system_prompt)
        self.bench = (
            None if selection.bench is None
            else BenchPrompts(Path(selection.bench), selection.leak_words)
        )  # fmt: skip

    def __call__(self, rows: list[Row]) -> list[Judged]:
        judged, words = [], []
        for row in rows:
            try:
                verdict, its_words = self._judge(row)
                words.append(its_words)
            except Rejected as reason:
                verdict = Judged(row.file, row.number, row.id, str(reason))
            judged.append(verdict)
        if words and self.selection.near_duplicate_similarity is not None:
            signed = iter(signatures(words))
            judged = [
                verdict if verdict.rejected else verdict._replace(signature=next(signed))
                for verdict in judged
            ]
        return judged

    def _judge(self, row: Row) -> tuple[Judged, list[bytes]]:
        if row.problem is not None:
            raise Rejected(row.problem)
        messages, changes = regular(row.turns, self.selection)
        words: list[bytes] = []
        if self.bench is not None or self.selection.near_duplicate_similarity is not None:
            words = words_of([m["content"] for m in messages if m["role"] != "system"])
        if self.bench is not None and (found := self.bench.found_in(words)):
            raise Rejected(f"holds a bench prompt: {found}")
        if self.opening and messages[0]["role"] != "system":
            messages = self.opening + messages
            changes.append("system prompt put in front")
        replies = [m["content"] for m in messages if m["role"] == "assistant"]
        verdict = Judged(
            row.file, row.number, row.id, None,
            json.dumps(messages, ensure_ascii=False).encode(), tuple(changes),
            len(replies), sum(map(len, replies)),
        )  # fmt: skip
        return verdict, words


def statistics(prepared: Prepared, splits: dict[str, list[int]]) -> dict:
    """What became of every row, and counts and lengths of the conversations taken."""
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
    usable = len(prepared.usable) - prepared.reasons["near duplicate"]
    return {
        "read": usable + rejected,
        "kept": usable,
        "changes": dict(sorted(prepared.changes.items())),
        "rejected": dict(sorted(prepared.reasons.items())),
        "conversations": table.groupby("split").size().to_dict(),
        "assistant_turns": table.groupby("split")["turns"].sum().to_dict(),
        "assistant_characters": {
            key: round(float(lengths[key]), 1)
            for key in ("mean", "min", "10%", "50%", "90%", "max")
        },
    }


def _files(source: str, revision: str | None) -> list[Path]:
    if source.startswith("hub:"):
        return [fetch_dataset_file(source, revision, f"sharegpt.source = {source}")]
    path = Path(source)
    if path.is_dir():
        files = sorted({file for pattern in PATTERNS for file in path.glob(pattern)})
        if not files:
            raise InputError(f"{source}: the folder holds no .json file of conversations")
        return files
    return [path]


def _rows(file: Path, roles: Mapping[str, str], progress: Progress) -> Iterator[list[Row]]:
    """Batches of a file's rows.

    Raises:
        InputError: an unknown role, or already the first row is of another schema: then the file
            is, and not a row of it.
    """
    number = 0
    for batch in batches_of_rows(file, progress):
        rows = []
        for content in batch:
            where = f"{file}, row {number}"
            try:
                turns = turns_of(content, roles, where)
                rows.append(Row(file.name, number, _identity(content), turns))
            except OtherSchema as found:
                if number == 0:
                    raise InputError(f"{where}: {found}") from None
                rows.append(Row(file.name, number, None, [], f"another schema: {found}"))
            except Rejected as reason:
                rows.append(Row(file.name, number, None, [], str(reason)))
            number += 1
        yield rows


def _identity(content: dict) -> str | int | None:
    identity = content.get("id")
    if not isinstance(identity, str | int | None) or (
        isinstance(identity, str) and not is_unicode(identity)
    ):
        raise Rejected("id is neither text nor a whole number")
    return identity


def _how_many(available: int, selection: ShareGptSelection, source: str) -> int:
    if selection.n is None:
        return max(1, round(available * selection.frac))
    if selection.n > available:
        raise InputError(
            f"n = {selection.n}: {source} has only {available} usable conversations; "
            "lower it or give frac"
        )
    return selection.n
