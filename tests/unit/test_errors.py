"""What a message is taken without."""

import errno
import shutil

import pytest
from safetensors import SafetensorError

from eagle.errors import (
    InputError,
    error_of_system,
    one_clear_message,
    one_line,
    said_plainly,
    shortened,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("at http://user:p@ss@host/v1: refused", "at http://host/v1: refused"),
        ("https:/user:pass@host/a.json", "https:/host/a.json"),  # as pathlib writes a URL
        ("URL('socks5://:pass@[::1]:80')", "URL('socks5://[::1]:80')"),
        ("http://host/a and you@example.org", "http://host/a and you@example.org"),
        ("{'authorization': 'Bearer abc.d-e', 'x': 1}", "{'[a secret]', 'x': 1}"),
        ("Authorization: Basic dXNlcjpwYXNz\nHost: h", "[a secret]\nHost: h"),
        ("illegal value b'Bearer abc'", "illegal value b'[a secret]'"),
        ("the token hf_abcdefgh0 is no", "the token [a secret] is no"),
        ("key open-sesame, or so", "key [OPENAI_API_KEY], or so"),
        ("EMPTY is a key that many servers take", "EMPTY is a key that many servers take"),
        ("a\x1b]0;title\x07\r.json", "a?]0;title??.json"),
    ],
)
def test_messages_hold_no_secrets_and_control_no_terminal(monkeypatch, text, expected):
    monkeypatch.setenv("OPENAI_API_KEY", "open-sesame")
    monkeypatch.setenv("HF_TOKEN", "EMPTY")
    assert str(InputError(text)) == expected


def test_a_secret_is_taken_out_before_a_text_is_cut(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "open-sesame")
    for shown in (
        shortened("x" * 235 + "open-sesame"),
        one_line(OSError("x" * 235 + "open-sesame")),
    ):
        assert "open" not in shown.lower().replace("[open", "")
        assert len(shown) == 240


def of_torch() -> RuntimeError:
    try:
        try:
            raise OSError(errno.EIO, "Input/output error")
        finally:
            raise RuntimeError("unexpected pos 64 vs 0")
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), errno.ENOSPC),
        (SafetensorError("I/O error: Disk quota exceeded (os error 122)"), errno.EDQUOT),
        (of_torch(), errno.EIO),
        (shutil.Error([("a", "b", "[Errno 28] No space left on device: 'a' -> 'b'")]), 28),
        (RuntimeError("unable to mmap 9 bytes from file <a>: Cannot allocate memory (12)"), 12),
        (OSError("of a library, not of the system"), None),
        (ValueError("a fault of ours"), None),
        (RuntimeError("a fault of ours"), None),
    ],
)
def test_an_error_of_the_system_is_one_line_and_a_fault_of_ours_is_not(error, number, capsys):
    found = error_of_system(error)
    assert (found and found.errno) == number
    with pytest.raises(SystemExit if number else type(error)), one_clear_message():
        raise error
    printed = capsys.readouterr().err
    assert printed.count("\n") == (1 if number else 0)
    assert printed.startswith("error: " if number else "")


def test_the_message_names_the_file_the_reason_and_what_to_do(tmp_path):
    full = said_plainly(OSError(errno.ENOSPC, "", str(tmp_path / "not/there")))
    assert full.startswith(f"{tmp_path}/not/there: the disk is full (")
    assert " MB are free); make room on it and start the same command again" in full
    for number in (errno.EROFS, errno.EACCES, errno.EIO, errno.EDQUOT, errno.ENAMETOOLONG):
        assert said_plainly(OSError(number, "", "a/b")).startswith("a/b: ")
    assert said_plainly(OSError(errno.ENOTDIR, "Not a directory", "a")).startswith("a: Not a dir")
