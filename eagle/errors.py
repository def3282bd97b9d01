"""Errors that the user can correct: their type, their text, and how a command reports them."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SECRETS = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "OPENAI_API_KEY",
    "CLEARML_API_ACCESS_KEY",
    "CLEARML_API_SECRET_KEY",
)
"""Environment variables whose values no message shows."""
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SHORTEST_SECRET = 8  # characters; servers without keys are given words such as EMPTY
_USER_OF_URL = re.compile(r"(:/+)[^\s\"'<>]*@")  # a path has one slash of a URL
_CREDENTIALS = re.compile(
    r"(?i:\bauthorization\b[\"']?\s*[:=]\s*[\"']?(\w+\s+)?|\bbearer\s+)[^\s\"',}]+|\bhf_\w{8,}"
)


class InputError(Exception):
    """An input of the user cannot be used.

    The message names the file, row or key, what was found, what was expected and what to do. It is
    taken without secrets, as it goes to logs and trackers, and without characters that control a
    terminal.
    """

    def __init__(self, message: str):
        super().__init__(_CONTROLS.sub("?", without_secrets(message)))


def without_secrets(text: str) -> str:
    """The text without the users and passwords of its URLs, tokens, and the values of SECRETS.

    What others say may hold them: a server repeats a request's headers, a client its proxy's URL.
    """
    for name in SECRETS:
        value = os.environ.get(name, "").strip()
        if len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, f"[{name}]")
    return _CREDENTIALS.sub("[a secret]", _USER_OF_URL.sub(r"\1", text))


@contextmanager
def one_clear_message() -> Iterator[None]:
    """Turn an InputError into one line on stderr and exit code 1, without a traceback."""
    try:
        yield
    except InputError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(1) from None


def one_line(error: Exception) -> str:
    """What another library's exception says, on one line and not too long for a message."""
    return shortened(" ".join(str(error).split())) or type(error).__name__


def shortened(text: str) -> str:
    """The beginning of a text of others, without secrets; they go first, as half of one is left
    otherwise."""
    return without_secrets(text)[:240]


def and_more(found: list, what: str = "more") -> str:
    """For a message that names the first of several things: how many others there are."""
    return f" (and {len(found) - 1} {what})" if len(found) > 1 else ""
