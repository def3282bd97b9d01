"""ShareGPT conversations: read, made regular, chosen, split.

A conversation is {"id": ..., "messages": [{"role": "system"|"user"|"assistant", "content": str},
...]}: at most one system turn, then user and assistant in turn.
"""

import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from eagle.config import ShareGptSelection
from eagle.errors import InputError
from eagle.files import read_json, read_json_lines
from eagle.hub import fetch_dataset_file

ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "assistant": "assistant",
}
# Keys of the list of turns, of a turn's role and of its text: ShareGPT's, and the messages form.
FORMS = (("conversations", "from", "value"), ("messages", "role", "content"))
SYSTEM_PROMPTS = Path(__file__).parents[1] / "resources" / "system_prompts"


@dataclass
class Prepared:
    """Kept conversations, and every other row with file, row and reason."""

    conversations: list[dict]
    rejected: list[dict]


class _Rejected(Exception):
    """Why one conversation cannot be used."""


def prepare(source: str, revision: str | None, selection: ShareGptSelection) -> Prepared:
    """Read a ShareGPT source, make its conversations regular, shuffle, and take `n` or `frac`.

    Args:
        source: a JSON file, a folder of them, or hub:OWNER/NAME/FILE.
        revision: hub commit; unused for local files.

    Raises:
        InputError: the source is absent, not JSON, in another schema, has an unknown role, or
            holds no usable conversation.
    """
    system_prompt = read_system_prompt(selection.system_prompt)
    prepared = Prepared([], [])
    for file in _files(source, revision):
        for row, content in enumerate(_rows(file)):
            where = f"{file}, row {row}"
            try:
                messages = _regular(_messages(content, where))
            except _Rejected as reason:
                prepared.rejected.append({"file": file.name, "row": row, "reason": str(reason)})
                continue
            if system_prompt and messages[0]["role"] != "system":
                messages.insert(0, {"role": "system", "content": system_prompt})
            identity = content.get("id", len(prepared.conversations))
            prepared.conversations.append({"id": identity, "messages": messages})
    if not prepared.conversations:
        first = prepared.rejected[0] if prepared.rejected else None
        raise InputError(
            f"{source}: no usable conversation; "
            + (f"all {len(prepared.rejected)} rejected, the first because: {first['reason']}"
               if first else "the list is empty")
        )  # fmt: skip
    random.Random(selection.shuffle_seed).shuffle(prepared.conversations)
    prepared.conversations = prepared.conversations[: _how_many(prepared, selection, source)]
    return prepared


def split(conversations: list[dict], validation_fraction: float) -> tuple[list[dict], list[dict]]:
    """Training and validation conversations: the last ones are held out, at least one.

    Raises:
        InputError: fewer than two conversations.
    """
    if len(conversations) < 2:
        raise InputError(
            f"{len(conversations)} conversation: at least two are needed, one of them to validate"
        )
    held_out = min(max(1, round(len(conversations) * validation_fraction)), len(conversations) - 1)
    return conversations[:-held_out], conversations[-held_out:]


def statistics(prepared: Prepared, splits: dict[str, list[dict]]) -> dict:
    """Counts and lengths of what was kept, and the reasons of what was not."""
    table = pd.DataFrame(
        {
            "split": split_name,
            "turns": sum(message["role"] == "assistant" for message in row["messages"]),
            "assistant_characters": sum(
                len(message["content"])
                for message in row["messages"]
                if message["role"] == "assistant"
            ),
        }
        for split_name, rows in splits.items()
        for row in rows
    )
    lengths = table["assistant_characters"].describe(percentiles=[0.1, 0.5, 0.9])
    return {
        "conversations": table.groupby("split").size().to_dict(),
        "assistant_turns": table.groupby("split")["turns"].sum().to_dict(),
        "assistant_characters": {
            key: round(float(lengths[key]), 1)
            for key in ("mean", "min", "10%", "50%", "90%", "max")
        },
        "rejected": dict(Counter(row["reason"].split(":")[0] for row in prepared.rejected)),
    }


def read_conversations(path: Path) -> list[dict]:
    """Read JSON lines of conversations, as `prepare` leaves them and the page's training reads.

    Raises:
        InputError: the file or a row is not of that form; the message names the line.
    """
    rows = read_json_lines(path)
    for number, row in enumerate(rows, start=1):
        where = f"{path}, conversation {number}"
        try:
            row["messages"] = _regular(_messages(row, where))
        except _Rejected as reason:
            raise InputError(f"{where}: {reason}") from None
    return rows


def read_system_prompt(name: str) -> str | None:
    """The text of a system prompt: none, a named one, or a file's.

    Raises:
        InputError: neither a known name nor a file.
    """
    if name == "none":
        return None
    named = SYSTEM_PROMPTS / f"{name}.txt"
    path = named if named.is_file() else Path(name)
    if not path.is_file():
        known = ", ".join(sorted(prompt.stem for prompt in SYSTEM_PROMPTS.glob("*.txt")))
        raise InputError(
            f"system_prompt = {name}: neither a known prompt (none, {known}) nor a text file"
        )
    return path.read_text(encoding="utf-8").strip()


def _files(source: str, revision: str | None) -> list[Path]:
    if source.startswith("hub:"):
        return [fetch_dataset_file(source, revision, f"sharegpt.source = {source}")]
    path = Path(source)
    if path.is_dir():
        files = sorted(path.glob("*.json"))
        if not files:
            raise InputError(f"{source}: the folder holds no .json file of conversations")
        return files
    return [path]


def _rows(file: Path) -> list:
    content = read_json(file)
    if not isinstance(content, list):
        raise InputError(
            f"{file}: found a JSON {type(content).__name__}, expected ShareGPT's schema: a list "
            'of {"id": ..., "conversations": [{"from": "human", "value": "..."}, ...]}'
        )
    return content


def _messages(row: object, where: str) -> list[dict]:
    """Turns of one row, in ShareGPT's or in the messages form, as role and content."""
    form = next(
        (form for form in FORMS if isinstance(row, dict) and isinstance(row.get(form[0]), list)),
        None,
    )
    if form is None:
        found = f"keys {sorted(row)}" if isinstance(row, dict) else f"a {type(row).__name__}"
        raise InputError(
            f'{where}: found {found}, expected {{"conversations": [{{"from", "value"}}, ...]}} '
            'or {"messages": [{"role", "content"}, ...]}'
        )
    turns_key, role_key, text_key = form
    messages = []
    for number, turn in enumerate(row[turns_key]):
        if not isinstance(turn, dict) or not {role_key, text_key} <= turn.keys():
            raise InputError(
                f"{where}, turn {number}: found {str(turn)[:60]!r}, expected an object with "
                f"`{role_key}` and `{text_key}`"
            )
        role = ROLES.get(str(turn[role_key]).lower())
        if role is None:
            raise InputError(
                f"{where}, turn {number}: unknown role {turn[role_key]!r}; expected one of "
                f"{', '.join(ROLES)}"
            )
        if not isinstance(turn[text_key], str):
            raise _Rejected(f"turn is not text: turn {number}")
        if any("\ud800" <= character <= "\udfff" for character in turn[text_key]):
            raise _Rejected(f"turn holds half a surrogate pair: turn {number}")
        messages.append({"role": role, "content": turn[text_key]})
    return messages


def _regular(messages: list[dict]) -> list[dict]:
    """Drop a leading assistant turn and a trailing user turn; require alternation and text."""
    system = [message for message in messages if message["role"] == "system"]
    turns = [message for message in messages if message["role"] != "system"]
    if len(system) > 1 or (system and messages[0]["role"] != "system"):
        raise _Rejected("system turn not at the start")
    if turns and turns[0]["role"] == "assistant":
        turns = turns[1:]
    if turns and turns[-1]["role"] == "user":
        turns = turns[:-1]
    if not turns:
        raise _Rejected("no user turn with a reply")
    for number, message in enumerate(turns):
        if message["role"] != ("user", "assistant")[number % 2]:
            raise _Rejected(f"roles do not alternate: turn {number}")
        if not message["content"].strip():
            raise _Rejected(f"empty turn: turn {number}")
    return system + turns


def _how_many(prepared: Prepared, selection: ShareGptSelection, source: str) -> int:
    available = len(prepared.conversations)
    if selection.n is None:
        return max(1, round(available * selection.frac))
    if selection.n > available:
        raise InputError(
            f"n = {selection.n}: {source} has only {available} usable conversations; "
            "lower it or give frac"
        )
    return selection.n
