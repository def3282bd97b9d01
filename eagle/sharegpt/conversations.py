"""A conversation: {"id": ..., "messages": [{"role": "system"|"user"|"assistant", "content": str},
...]}, with at most one system turn, then user and assistant in turn.
"""

import reprlib
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from eagle.config import ShareGptSelection
from eagle.errors import InputError
from eagle.files import json_lines

Member = TypeVar("Member")
# Keys of the list of turns, of a turn's role and of its text: ShareGPT's, and the messages form.
FORMS = (("conversations", "from", "value"), ("messages", "role", "content"))
_AS_WRITTEN = ShareGptSelection(frac=1.0)  # the rules that `prepare`'s own files have passed


class Rejected(Exception):
    """Why one conversation cannot be used."""


class OtherSchema(Rejected):
    """What was found in place of a conversation."""


class Turn(NamedTuple):
    """A turn as its row has it."""

    number: int
    role: str
    text: str
    problem: str | None = None
    """Why it is no text that can be used."""


def read_conversations(path: Path) -> list[dict]:
    """All of `conversations`."""
    return list(conversations(path))


def conversations(path: Path) -> Iterator[dict]:
    """The conversations of JSON lines as `prepare` leaves them and the page's training reads,
    read as they are asked for.

    Raises:
        InputError: the file or a row is not of that form; the message names the line.
    """
    for number, row in enumerate(json_lines(path), start=1):
        yield row | {"messages": messages_of(row, f"{path}, conversation {number}")}


def messages_of(content: Any, where: str) -> list[dict]:
    """The messages of one conversation, regular.

    Raises:
        InputError: it is not of that form, or not usable.
    """
    try:
        return regular(turns_of(content, _AS_WRITTEN.roles, where), _AS_WRITTEN)[0]
    except Rejected as reason:
        raise InputError(f"{where}: {reason}") from None


def split(rows: list[Member], validation_fraction: float) -> tuple[list[Member], list[Member]]:
    """Training and validation conversations: the last ones are held out, at least one.

    Raises:
        InputError: fewer than two conversations.
    """
    if len(rows) < 2:
        raise InputError(
            f"{len(rows)} conversation: at least two are needed, one of them to validate"
        )
    held_out = min(max(1, round(len(rows) * validation_fraction)), len(rows) - 1)
    return rows[:-held_out], rows[-held_out:]


def turns_of(content: Any, roles: Mapping[str, str], where: str) -> list[Turn]:
    """Turns of one row, in ShareGPT's or in the messages form."""
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


def regular(turns: list[Turn], selection: ShareGptSelection) -> tuple[list[dict], list[str]]:
    """Messages that alternate and end with a reply, and what was changed for it."""
    changes = []
    system = [turn for turn in turns if turn.role == "system"]
    spoken = [turn for turn in turns if turn.role != "system"]
    if system and selection.system_turns == "drop":
        system = []
        changes.append("system turn dropped")
    if len(system) > 1 or (system and turns[0].role != "system"):
        raise Rejected("system turn not at the start")
    for turn in system:  # an empty one is as good as any
        if (turn.problem or turn.text.strip()) and (problem := _problem(turn, selection)):
            raise Rejected(f"{problem}: turn {turn.number}")
    if spoken and spoken[0].role == "assistant":
        if not selection.drop_leading_reply:
            raise Rejected("begins with a reply")
        spoken = spoken[1:]
        changes.append("leading reply dropped")
    if not selection.require_alternation:
        runs = [list(run) for _role, run in groupby(spoken, key=lambda turn: turn.role)]
        if len(runs) < len(spoken):
            spoken = [_joined(run) for run in runs]
            changes.append("turns of one speaker joined")
    for place, turn in enumerate(spoken):
        if turn.role != ("user", "assistant")[place % 2]:
            raise Rejected(f"roles do not alternate: turn {turn.number}")
    if len(spoken) % 2:
        spoken = spoken[:-1]
        changes.append("last prompt dropped, which has no reply")
    for place, turn in enumerate(spoken):
        if problem := _problem(turn, selection):
            if selection.unusable_turn == "reject":
                raise Rejected(f"{problem}: turn {turn.number}")
            spoken = spoken[: place - place % 2]
            changes.append("cut before an unusable turn")
            break
    if not spoken:
        raise Rejected("no user turn with a reply")
    return [{"role": turn.role, "content": turn.text} for turn in system + spoken], changes


def is_unicode(text: str) -> bool:
    """Whether every character can be written; half a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(content: Any) -> tuple[str, str | None]:
    """A turn's text, the texts of its parts joined, and why it is no text."""
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
    """Why a turn cannot be used."""
    if turn.problem is not None:
        return turn.problem
    if not turn.text.strip():
        return "empty turn"
    longest = selection.maximum_turn_characters
    if longest is not None and len(turn.text) > longest:
        return f"turn of more than {longest} characters"
    return None if is_unicode(turn.text) else "turn holds half a surrogate pair"


def _joined(run: list[Turn]) -> Turn:
    problem = next((turn.problem for turn in run if turn.problem), None)
    return Turn(run[0].number, run[0].role, "\n\n".join(turn.text for turn in run), problem)


def _short(found: Any) -> str:
    """repr, however long or deep what was found is."""
    return reprlib.repr(found)
