"""The turns of one row, and what becomes of every field.

A conversation is read in ShareGPT's form, in OpenAI's messages and in what lies between them
(SpecForge's `conversations` of `role` and `content`). Each field of a row and of its turns is

- used: `id`, the list of turns, a row's system prompt, and in each turn its role, its text, its
  reasoning, which becomes the thought in front of the reply, as reasoning models write it, and
  `finish_reason`, which tells whether a reply was cut at a limit of length;
- the reason why the row, or the conversation from that turn on, cannot be used: tools, calls of
  tools, documents and media, which the text does not hold, and a mark that a reply is not to be
  trained on;
- or not understood: then it is counted by its name.
"""

import reprlib
from collections.abc import Collection, Mapping, Set
from typing import Any, NamedTuple

from eagle.config import REJECT

# Each fact under all its names. The first list of turns that is not empty counts.
TURNS = ("conversations", "messages", "conversation")
ROLE = ("from", "role")
TEXT = ("value", "content")
SYSTEM = ("system", "system_prompt", "system_message")
REASONING = ("reasoning_content", "reasoning", "thinking")
# What a reply depends on or consists of, beside text.
UNUSABLE = (
    "tools", "functions", "tool_calls", "function_call", "documents", "image", "images", "audio",
    "audios", "video", "videos",
)  # fmt: skip
# Whether to train on a reply: 1 or true where it is to be learnt.
TRAINED = (
    "weight", "train", "training", "trainable", "train_on_turn", "loss", "loss_weight", "loss_mask"
)  # fmt: skip
# Why a reply ended, as OpenAI's API names it; CUT_AT_LENGTH: at a limit, not by itself.
FINISH, CUT_AT_LENGTH = "finish_reason", "length"
ROW_FIELDS = {"id", *TURNS, *SYSTEM, *UNUSABLE, *TRAINED}
TURN_FIELDS = {*ROLE, *TEXT, *UNUSABLE, *TRAINED, FINISH}
_EXPECTED = (
    'expected {"conversations": [{"from", "value"}, ...]} '
    'or {"messages": [{"role", "content"}, ...]}'
)
_EXPECTED_TURN = "expected an object with `from` or `role`, and `value` or `content`"
_ABSENT = object()


class Rejected(Exception):
    """One conversation cannot be used; the message is the reason."""


class OtherSchema(Rejected):
    """The row is not a conversation; the message says what was found instead."""

    def __init__(self, found: str):
        super().__init__(f"another schema: {found}")


class Turn(NamedTuple):
    """One turn of a row, before the rules are applied."""

    number: int | None
    """Index in the row's list of turns; None for the system prompt in a field of the row."""
    role: str
    """system, user or assistant; "reject" if its name is unknown or `sharegpt.roles` says so."""
    text: str
    problem: str | None = None
    """Why its content is not usable text; None if it is."""
    change: str | None = None
    """What was done to make it a turn of text; None if nothing."""
    unfinished: bool = False
    """Whether it is a reply that was cut at a limit of length."""

    @property
    def place(self) -> str:
        """Where the turn stands, for a reason."""
        return "a field of the row" if self.number is None else f"turn {self.number}"


class RowTurns(NamedTuple):
    """What was read of a row."""

    turns: list[Turn]
    fields_not_read: set[str]
    """Names of the fields with a value that are not understood; `turns[].NAME` is one of a turn."""


def turns_of(row: Any, roles: Mapping[str, str]) -> RowTurns:
    """The turns of one row.

    Args:
        roles: the role of each name that a turn can have, or "reject"; names in lower case.

    Raises:
        OtherSchema: the row is in no form of a conversation.
        Rejected: a field changes what the row means, and it cannot be used.
    """
    if not isinstance(row, dict):
        raise OtherSchema(f"found a {type(row).__name__}, {_EXPECTED}")
    lists = [key for key in TURNS if isinstance(row.get(key), list)]
    turns_key = next((key for key in lists if row[key]), lists[0] if lists else None)
    if turns_key is None:
        raise OtherSchema(f"found keys {short(sorted(row))}, {_EXPECTED}")
    more = row.keys() - {"id", turns_key}  # many rows have nothing else
    fields_not_read = _other_fields(row, more) if more else set()
    turns = []
    for number, content in enumerate(row[turns_key]):
        turn, not_read = _turn(number, content, roles)
        turns.append(turn)
        fields_not_read |= not_read
    return RowTurns(_with_system_prompt(row, turns) if more else turns, fields_not_read)


def short(found: Any) -> str:
    """A representation of bounded length, for messages."""
    return reprlib.repr(found)


def _other_fields(row: dict, names: Set[str]) -> set[str]:
    """Those of the names, which are of fields beside a row's id and turns, that are not read.

    Raises:
        Rejected: one of the fields changes what the row means, and it cannot be used.
    """
    if field := _given(row, UNUSABLE):
        raise Rejected(f"row with `{field}`")
    for field in TRAINED:
        if field in row and row[field] in (False, 0):
            raise Rejected(f"row that is not to be trained on: `{field}` = {short(row[field])}")
    other_lists = {name for name in names & set(TURNS) if _has_value(row[name])}
    return _with_value(row, names - ROW_FIELDS | other_lists)


def _turn(number: int, content: Any, roles: Mapping[str, str]) -> tuple[Turn, set[str]]:
    """One turn, and the names of its fields that were not read."""
    if not isinstance(content, dict):
        raise OtherSchema(f"turn {number}: found {short(content)}, {_EXPECTED_TURN}")
    name, text = _one_of(content, ROLE, number), _one_of(content, TEXT, number)
    more = len(content) > 2 or text is _ABSENT  # most turns have a role and a text alone
    unusable = _given(content, UNUSABLE) if more else None
    if name is _ABSENT or (text is _ABSENT and not unusable):
        raise OtherSchema(f"turn {number}: found {short(content)}, {_EXPECTED_TURN}")
    role = roles.get(name.lower()) if isinstance(name, str) else None
    if role is None:
        problem = f"unknown role {short(name)}, which sharegpt.roles does not name"
        return Turn(number, REJECT, "", problem), set()
    if role == REJECT:
        return Turn(number, REJECT, "", f"turn of role {short(name)}"), set()
    if unusable:
        return Turn(number, role, "", f"turn with `{unusable}`"), set()
    turn = Turn(number, role, *_text(text))
    if not more:
        return turn, set()
    not_read = content.keys() - TURN_FIELDS
    if role == "assistant":
        not_read -= set(REASONING)
        turn = _reply(turn, content)
    return turn, {f"turns[].{field}" for field in _with_value(content, not_read)}


def _reply(turn: Turn, content: dict) -> Turn:
    """A reply with its reasoning as a thought in front; a problem if it is not to be learnt."""
    for field in TRAINED:
        if content.get(field) not in (None, True, 1):
            problem = f"reply that is not to be trained on (`{field}` = {short(content[field])})"
            return turn._replace(problem=problem)
    turn = turn._replace(unfinished=content.get(FINISH) == CUT_AT_LENGTH)
    thoughts = {field: content[field] for field in REASONING if _has_value(content.get(field))}
    if not thoughts or turn.problem or not turn.text.strip():
        return turn
    fields, first = ", ".join(f"`{field}`" for field in thoughts), next(iter(thoughts.values()))
    if not isinstance(first, str):
        return turn._replace(problem=f"{fields} is not text")
    thought = first.strip("\n")
    stated = "</think>" in turn.text  # the reply holds a thought already
    if any(other != first for other in thoughts.values()) or (
        stated and thought.strip() not in turn.text
    ):
        return turn._replace(problem=f"{fields}: two thoughts that differ")
    if stated:
        return turn
    text = f"<think>\n{thought}\n</think>\n\n{turn.text}"
    return turn._replace(text=text, change="reasoning made a thought")


def _with_system_prompt(row: dict, turns: list[Turn]) -> list[Turn]:
    """The turns with the system prompt in front that a field of the row holds, if any.

    Raises:
        Rejected: two system prompts that differ.
    """
    prompts = {}
    for field in SYSTEM:
        if field in row and _has_value(row[field]):
            prompts[field], problem = _text(row[field])
            if problem:
                raise Rejected(f"`{field}` of the row is not text")
    if not prompts:
        return turns
    if not turns or turns[0].role != "system":
        change = "system prompt of the row made a turn"
        first = next(iter(prompts.values()))
        turns = [Turn(None, "system", first, change=change), *turns]
    for field, text in prompts.items():
        if text.strip() != turns[0].text.strip():
            raise Rejected(f"`{field}` of the row differs from another system prompt of it")
    return turns


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
            return "", f"turn holds a part of another kind, {short(part['type'])}"
        if not isinstance(part.get("text"), str):
            return "", "turn is not text"
        texts.append(part["text"])
    return "".join(texts), None


def _one_of(turn: dict, names: tuple[str, str], number: int) -> Any:
    """The value of a turn under one of two names; _ABSENT if it has neither.

    Raises:
        Rejected: it has two values that differ.
    """
    one, other = names
    if other not in turn:
        return turn.get(one, _ABSENT)
    if turn.get(one) is None:  # a row of a Parquet file has every name
        return turn[other]
    if turn[other] not in (None, turn[one]):
        raise Rejected(f"`{one}` and `{other}` differ: turn {number}")
    return turn[one]


def _given(fields: dict, names: Collection[str]) -> str | None:
    """The first of `names` under which there is something."""
    return next((name for name in names if name in fields and _has_value(fields[name])), None)


def _has_value(value: Any) -> bool:
    """Whether a value is more than an empty one, in JSON or in a text of JSON."""
    if isinstance(value, str):
        return value.strip() not in ("", "[]", "{}", "null")
    if isinstance(value, dict):  # a Parquet row has every name of a struct
        return any(inner is not None for inner in value.values())
    return value not in (None, [], False)


def _with_value(fields: dict, names: Collection[str]) -> set[str]:
    """Those of `names` that are not null, each in a form that can be printed."""
    return {
        name if name.isidentifier() else short(name) for name in names if fields[name] is not None
    }
