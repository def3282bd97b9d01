"""The form of a conversation, and the rules that bring the turns of a row into it.

A conversation is {"id": ..., "messages": [{"role": "system" | "user" | "assistant", "content":
str}, ...]}: at most one system turn at the start, then user and assistant turns that alternate. A
reply that was cut at a limit of length also has "finish_reason": "length".
"""

from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from eagle.config import REJECT, ROLES, ShareGptSelection
from eagle.errors import InputError
from eagle.files import json_lines
from eagle.sharegpt.turns import CUT_AT_LENGTH, FINISH, Rejected, Turn, turns_of

Item = TypeVar("Item")
NAMED_REASONS = 3
NAMED_FIELDS = 5
# The rules for a conversation in a file of JSON lines. Only the rules that `regularize` reads are
# set; `prepare` alone applies the others.
_PREPARED_RULES = ShareGptSelection.model_construct(
    system_turns="keep",
    drop_leading_reply=True,
    require_alternation=True,
    unusable_turn="reject",
    maximum_turn_characters=None,
)


class Rejections:
    """Rows that cannot be used, counted by the part of the reason before its colon."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def add(self, reason: str, where: str) -> None:
        """Count one row; `where` names it."""
        kind = reason.split(":")[0]
        self.counts[kind] += 1
        self._first.setdefault(kind, f"{reason[:250]} ({where})")

    def __str__(self) -> str:
        """The most frequent reasons, each with its count and the first such row."""
        most = self.counts.most_common(NAMED_REASONS)
        others = len(self.counts) - len(most)
        return "; ".join(
            [f"{count:,} because: {self._first[kind]}" for kind, count in most]
            + ([f"and {others} other reasons"] if others else [])
        )


class Usable(NamedTuple):
    """What can be used of a file of conversations, and what cannot."""

    conversations: list[dict]
    rejections: Rejections
    fields_not_read: Counter[str]
    """Number of usable rows by the name of a field that is not understood."""


def read_conversations(path: Path) -> list[dict]:
    """A list of all that `conversations` yields."""
    return list(conversations(path))


def conversations(path: Path) -> Iterator[dict]:
    """Read conversations from JSON lines, one at a time.

    The file is one that `prepare` wrote, or that the upstream tutorial's training reads.

    Raises:
        InputError: the file is not JSON lines, or a row is not a conversation; the message names
            the row.
    """
    for number, row in enumerate(json_lines(path), start=1):
        yield row | {"messages": messages_of(row, f"{path}, conversation {number}")}


def messages_of(row: Any, where: str) -> list[dict]:
    """The regular messages of one row.

    Args:
        where: file and row, with which an error's message begins.

    Raises:
        InputError: the row is not a conversation, or it cannot be used.
    """
    try:
        return regularize(turns_of(row, ROLES).turns, _PREPARED_RULES)[0]
    except Rejected as reason:
        raise InputError(f"{where}: {reason}") from None


def usable_conversations(path: Path) -> Usable:
    """Read the conversations of JSON lines that others may have written.

    Raises:
        InputError: the file is not JSON lines, or no row can be used; the message has the most
            frequent reasons.
    """
    rows, rejections, fields_not_read = [], Rejections(), Counter()
    for number, row in enumerate(json_lines(path), start=1):
        try:
            turns, not_read = turns_of(row, ROLES)
            messages, _changes = regularize(turns, _PREPARED_RULES)
        except Rejected as reason:
            rejections.add(str(reason), f"conversation {number}")
            continue
        rows.append({"id": row.get("id", number), "messages": messages})
        fields_not_read.update(not_read)
    if not rows:
        raise InputError(f"{path}: no usable conversation; {rejections}")
    return Usable(rows, rejections, fields_not_read)


def named_fields(fields_not_read: Counter[str]) -> str:
    """A note on fields that are not understood, for the line that ends a command; may be empty."""
    most = fields_not_read.most_common(NAMED_FIELDS)
    names = [f"{name} ({count:,} rows)" for name, count in most]
    others = len(fields_not_read) - len(most)
    if others:
        names.append(f"and {others} more")
    return "fields that were not read: " + ", ".join(names) if names else ""


def split(rows: list[Item], validation_fraction: float) -> tuple[list[Item], list[Item]]:
    """Split conversations into training and validation.

    The last `validation_fraction` of them is for validation, and at least one conversation.

    Raises:
        InputError: fewer than two conversations.
    """
    if len(rows) < 2:
        raise InputError(
            f"{len(rows)} conversation: at least two are needed, one of them to validate"
        )
    validation_count = min(max(1, round(len(rows) * validation_fraction)), len(rows) - 1)
    return rows[:-validation_count], rows[-validation_count:]


def regularize(turns: list[Turn], selection: ShareGptSelection) -> tuple[list[dict], list[str]]:
    """Bring turns into the form of a conversation that ends with a reply.

    Returns:
        The messages, and the name of each change that was necessary.

    Raises:
        Rejected: the rules of `selection` do not allow the change that would be necessary.
    """
    changes: list[str] = []
    system = [turn for turn in turns if turn.role == "system"]
    dialogue = [turn for turn in turns if turn.role != "system"]
    if system and selection.system_turns == "drop":
        system = []
        changes.append("system turn dropped")
    if len(system) > 1 or (system and turns[0].role != "system"):
        raise Rejected("system turn not at the start")
    for turn in system:  # an empty system turn is allowed
        if (turn.problem or turn.text.strip()) and (problem := _problem(turn, selection)):
            raise Rejected(f"{problem}: {turn.place}")
    if dialogue and dialogue[0].role == "assistant":
        if not selection.drop_leading_reply:
            raise Rejected("begins with a reply")
        dialogue = dialogue[1:]
        changes.append("leading reply dropped")
    for index, turn in enumerate(dialogue):
        if turn.role == REJECT:
            dialogue = _cut(dialogue, index, index, str(turn.problem), selection, changes)
            break
    if not selection.require_alternation:
        runs = [list(run) for _role, run in groupby(dialogue, key=lambda turn: turn.role)]
        if len(runs) < len(dialogue):
            dialogue = [_joined(run) for run in runs]
            changes.append("turns of one speaker joined")
    for index, turn in enumerate(dialogue):
        if turn.role != ("user", "assistant")[index % 2]:
            raise Rejected(f"roles do not alternate: {turn.place}")
    if len(dialogue) % 2:
        dialogue = dialogue[:-1]
        changes.append("last prompt dropped, which has no reply")
    for index, turn in enumerate(dialogue):
        if problem := _problem(turn, selection):
            dialogue = _cut(dialogue, index, index - index % 2, problem, selection, changes)
            break
    if not dialogue:
        raise Rejected("no user turn with a reply")
    turns = system + dialogue
    changes += [turn.change for turn in turns if turn.change]
    messages = [
        {"role": turn.role, "content": turn.text}
        | ({FINISH: CUT_AT_LENGTH} if turn.unfinished else {})
        for turn in turns
    ]
    return messages, list(dict.fromkeys(changes))


def is_unicode(text: str) -> bool:
    """Whether the text can be written as UTF-8; half a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _problem(turn: Turn, selection: ShareGptSelection) -> str | None:
    """Why a turn cannot be used; None if it can."""
    if turn.problem is not None:
        return turn.problem
    if not turn.text.strip():
        return "empty turn"
    longest = selection.maximum_turn_characters
    if longest is not None and len(turn.text) > longest:
        return f"turn of more than {longest} characters"
    return None if is_unicode(turn.text) else "turn holds half a surrogate pair"


def _cut(
    dialogue: list[Turn],
    index: int,
    end: int,
    problem: str,
    selection: ShareGptSelection,
    changes: list[str],
) -> list[Turn]:
    """The turns before `end`, where turn `index` has a problem.

    Raises:
        Rejected: the rules do not allow to cut there, or nothing would be left.
    """
    if selection.unusable_turn == "reject" or not end:
        raise Rejected(f"{problem}: {dialogue[index].place}")
    changes.append("cut before an unusable turn")
    return dialogue[:end]


def _joined(run: list[Turn]) -> Turn:
    """One turn in place of several turns of one role; texts divided by a blank line."""
    problem = next((turn.problem for turn in run if turn.problem), None)
    change = next((turn.change for turn in run if turn.change), None)
    text = "\n\n".join(turn.text for turn in run)
    return run[0]._replace(text=text, problem=problem, change=change, unfinished=run[-1].unfinished)
