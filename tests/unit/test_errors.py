"""What a message is taken without."""

import pytest

from eagle.errors import InputError, one_line, shortened


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
