"""Errors that the user can correct: their type, and how a command reports them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class InputError(Exception):
    """An input of the user cannot be used.

    The message names the file, row or key, what was found, what was expected and what to do.
    """


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
    return " ".join(str(error).split())[:240] or type(error).__name__


def and_more(found: list, what: str = "more") -> str:
    """For a message that names the first of several things: how many others there are."""
    return f" (and {len(found) - 1} {what})" if len(found) > 1 else ""
