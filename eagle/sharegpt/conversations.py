"""The form of a conversation, and how a row is brought into it.

A conversation is {"id": ..., "messages": [{"role": "system" | "user" | "assistant", "content":
str}, ...]}: at most one system turn at the start, then user and assistant turns that alternate.
"""

import reprlib
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from eagle.config import ROLES, ShareGptSelection
from eagle.errors import InputError
from eagle.files import json_lines

Item = TypeVar("Item")
# For ShareGPT's form and for the messages form: the key of the list of turns, and in each turn the
# keys of its role and its text.
FORMS = (("conversations", "from", "value"), ("messages", "role", "content"))
# The rules for a conversation in a file of JSON lines. Only the rules that `regularize` reads are
# set; `prepare` alone applies the others.
_PREPARED_RULES = ShareGptSelection.model_construct(
    system_turns="keep",
    drop_leading_reply=True,
    require_alternation=True,
    unusable_turn="reject",
    maximum_turn_characters=None,
)


class Rejected(Exception):
    """One conversation cannot be used; the message is the reason."""


class OtherSchema(Rejected):
    """The row is not a conversation; the message says what was found instead."""


class Turn(NamedTuple):
    """One turn of a row, before the rules are applied."""

    number: int
    """Index in the row's list of turns."""
    role: str
    text: str
    problem: str | None = None
    """Why its content is not usable text; None if it is."""


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


def messages_of(content: Any, where: str) -> list[dict]:
    """The regular messages of one row.

    Args:
        where: file and row, with which an error's message begins.

    Raises:
        InputError: the row is not a conversation, or it cannot be used.
    """
    try:
        return regularize(turns_of(content, ROLES, where), _PREPARED_RULES)[0]
    except Rejected as reason:
        raise InputError(f"{where}: {reason}") from None


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


def turns_of(content: Any, roles: Mapping[str, str], where: str) -> list[Turn]:
    """The turns of one row, in ShareGPT's form or in the messages form.

    Args:
        roles: the role of each name that a turn can have, names in lower case.
        where: file and row, with which an error's message begins.

    Raises:
        OtherSchema: the row is in neither form.
        InputError: a turn has a name that is not in `roles`.
    """
    form = next(
        (f for f in FORMS if isinstance(content, dict) and isinstance(content.get(f[0]), list)),
        None,
    )
    if form is None:
        kind = type(content).__name__
        found = f"keys {_short(sorted(content))}" if isinstance(content, dict) else f"a {kind}"
        raise OtherSchema(
            f'found {found}, expected {{"conversations": [{{"from", "value"}}, ...]}} '
            'or {"messages": [{"role", "content"}, ...]}'
        )
    turns_key, role_key, text_key = form
    turns = []
    for number, turn in enumerate(content[turns_key]):
        if not isinstance(turn, dict) or not {role_key, text_key} <= turn.keys():
            raise OtherSchema(
                f"turn {number}: found {_short(turn)}, expected an object with `{role_key}` and "
                f"`{text_key}`"
            )
        name = turn[role_key]
        role = roles.get(name.lower()) if isinstance(name, str) else None
        if role is None:
            raise InputError(
                f"{where}, turn {number}: unknown role {_short(name)}; expected one of "
                f"{', '.join(roles)}, or name it in sharegpt.roles"
            )
        turns.append(Turn(number, role, *_text(turn[text_key])))
    return turns


def regularize(turns: list[Turn], selection: ShareGptSelection) -> tuple[list[dict], list[str]]:
    """Bring turns into the form of a conversation that ends with a reply.

    Returns:
        The messages, and the name of each change that was necessary.

    Raises:
        Rejected: the rules of `selection` do not allow the change that would be necessary.
    """
    changes = []
    system = [turn for turn in turns if turn.role == "system"]
    dialogue = [turn for turn in turns if turn.role != "system"]
    if system and selection.system_turns == "drop":
        system = []
        changes.append("system turn dropped")
    if len(system) > 1 or (system and turns[0].role != "system"):
        raise Rejected("system turn not at the start")
    for turn in system:  # an empty system turn is allowed
        if (turn.problem or turn.text.strip()) and (problem := _problem(turn, selection)):
            raise Rejected(f"{problem}: turn {turn.number}")
    if dialogue and dialogue[0].role == "assistant":
        if not selection.drop_leading_reply:
            raise Rejected("begins with a reply")
        dialogue = dialogue[1:]
        changes.append("leading reply dropped")
    if not selection.require_alternation:
        runs = [list(run) for _role, run in groupby(dialogue, key=lambda turn: turn.role)]
        if len(runs) < len(dialogue):
            dialogue = [_joined(run) for run in runs]
            changes.append("turns of one speaker joined")
    for index, turn in enumerate(dialogue):
        if turn.role != ("user", "assistant")[index % 2]:
            raise Rejected(f"roles do not alternate: turn {turn.number}")
    if len(dialogue) % 2:
        dialogue = dialogue[:-1]
        changes.append("last prompt dropped, which has no reply")
    for index, turn in enumerate(dialogue):
        if problem := _problem(turn, selection):
            if selection.unusable_turn == "reject":
                raise Rejected(f"{problem}: turn {turn.number}")
            dialogue = dialogue[: index - index % 2]
            changes.append("cut before an unusable turn")
            break
    if not dialogue:
        raise Rejected("no user turn with a reply")
    return [{"role": turn.role, "content": turn.text} for turn in system + dialogue], changes


def is_unicode(text: str) -> bool:
    """Whether the text can be written as UTF-8; half a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(content: Any) -> tuple[str, str | None]:
    """The text of a turn's content, and why it is not usable text (None if it is).

    Content is a string or a list of parts; the texts of parts are joined.
    """
    if isinstance(content, str):
        return content, None
    texts = []
    for part in content if isinstance(content, list) else [content]:
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            return "", "turn is not text"
        if part["type"] != "text":
            return "", f"turn holds a part of another kind, {_short(part['type'])}"
        if not isinstance(part.get("text"), str):
            return "", "turn is not text"
        texts.append(part["text"])
    return "".join(texts), None


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


def _joined(run: list[Turn]) -> Turn:
    """One turn in place of several turns of one role; texts divided by a blank line."""
    problem = next((turn.problem for turn in run if turn.problem), None)
    return Turn(run[0].number, run[0].role, "\n\n".join(turn.text for turn in run), problem)


def _short(found: Any) -> str:
    """A representation of bounded length, for messages."""
    return reprlib.repr(found)
