"""The GPU image: its Dockerfile copies what exists and installs exact pins."""

import re

from tests.conftest import ROOT

DOCKERFILE = ROOT / "docker" / "Dockerfile"
EXACT_PIN = re.compile(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.]+)")  # no local version, URL, path, extra


def copied_by_name() -> list[str]:
    """Sources of every COPY from the build context."""
    instructions = DOCKERFILE.read_text().replace("\\\n", " ").splitlines()
    copies = [line.split()[1:] for line in instructions if line.startswith("COPY ")]
    from_context = [words for words in copies if not any(w.startswith("--from=") for w in words)]
    return [w for words in from_context for w in words[:-1] if not w.startswith("--")]


def pins(name: str) -> dict[str, str]:
    """Versions by package; fails on a line that is neither a comment nor an exact pin."""
    lines = (ROOT / name).read_text().splitlines()
    matches = {line: EXACT_PIN.fullmatch(line) for line in lines if not line.startswith("#")}
    wrong = [line for line, match in matches.items() if match is None]
    assert not wrong, f"{name} has lines that are not name==version: {wrong}"
    found = [match.groups() for match in matches.values() if match is not None]
    return {package.lower().replace("_", "-"): version for package, version in found}


def test_every_file_copied_by_name_exists():
    names = copied_by_name()
    assert "requirements.lock" in names
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_every_line_of_the_lock_is_an_exact_pin():
    assert "torch" in pins("requirements.lock")


def test_flash_attn_is_pinned_outside_the_lock():
    lock, image = pins("requirements.lock"), pins("requirements-flash-attn.txt")
    assert "flash-attn" in image
    assert "flash-attn" not in lock
    # the image installs this file after the lock and must not change what the lock installed
    assert {p: v for p, v in image.items() if lock.get(p, v) != v} == {}
