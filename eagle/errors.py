"""Errors that the user can correct: their type, their text, and how a command reports them."""

import errno
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

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
_OF_COPYTREE = re.compile(r"\[Errno (\d+)\]")  # which copies what it can, and lists the errors
_OF_RUST = re.compile(r"\(os error (\d+)\)")
_OF_TORCH = re.compile(r"file <([^>]*)>.*\((\d+)\)")
_PLAINLY = {
    errno.ENOSPC: ("the disk is full", "make room on it"),
    errno.EDQUOT: ("your share of the disk (quota) is used up", "make room in it"),
    errno.EFBIG: ("larger than a file may be here", "raise the limit (ulimit -f)"),
    errno.EROFS: ("the file system can only be read", "mount it for writing, or use another"),
    errno.EACCES: ("no permission", "check the owner and mode of it and of its folder"),
    errno.EPERM: ("not permitted", "check the owner and mode of it and of its folder"),
    errno.EIO: ("the disk cannot read or write it", "look for the disk's errors (dmesg), mend it"),
    errno.ENAMETOOLONG: ("too long a name for this file system", "use a shorter path"),
    errno.ENOENT: ("there is no such file or folder", "check the path"),
    errno.EMFILE: ("too many files are open", "raise the limit (ulimit -n)"),
    errno.EPIPE: ("what read the printed lines has ended", "let it read them all"),
    errno.ENOMEM: ("not enough memory", "free some"),
}
"""What an error of the system means, and what to do."""
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
    """Turn an InputError, or an error of the system, into one line on stderr and exit code 1."""
    try:
        yield
    except Exception as error:
        if isinstance(error, InputError):
            message = error
        elif found := error_of_system(error):
            message = InputError(said_plainly(found))
        else:
            raise
        with suppress(OSError):  # what is printed may go to the same full disk
            print(f"error: {message}", file=sys.stderr, flush=True)
        raise SystemExit(1) from None


def error_of_system(error: BaseException) -> OSError | None:
    """The error of the operating system that an exception is, or that another library put into it.

    safetensors and tokenizers, which are Rust, have its number in their text, and so has torch for
    maps. While torch closes a file, it raises an error of its own over it.
    """
    if isinstance(error, OSError) and error.errno:
        return error
    if isinstance(error, shutil.Error) and (number := _OF_COPYTREE.search(str(error))):
        return OSError(int(number[1]), os.strerror(int(number[1])), error.args[0][0][1])
    if isinstance(error, InputError):
        return None
    if number := _OF_RUST.search(str(error)):
        return OSError(int(number[1]), os.strerror(int(number[1])))
    if isinstance(error, RuntimeError):
        if found := _OF_TORCH.search(str(error)):
            return OSError(int(found[2]), os.strerror(int(found[2])), found[1])
        return error.__context__ and error_of_system(error.__context__)
    return None


def said_plainly(error: OSError) -> str:
    """What went wrong with which file, and what to do."""
    number = error.errno or 0
    reason, advice = _PLAINLY.get(number, (os.strerror(number), "mend that"))
    if number == errno.ENOSPC and error.filename:
        folder = Path(os.fsdecode(error.filename)).absolute()
        while not folder.is_dir():
            folder = folder.parent
        reason += f" ({shutil.disk_usage(folder).free / 1e6:,.0f} MB are free)"
    where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
    return f"{where}{reason}; {advice} and start the same command again"


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
