"""Compare files with the hashes that were written with them, beside other work.

`whole_folder` writes a list of hashes (`CHECKSUMS`) into every folder. Whoever reads such a folder
compares it once: bits flip on disks and in memory without a sign, and DVC looks at the times and
sizes of files only.
"""

import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from eagle.errors import InputError, and_more
from eagle.files import (
    CHECKSUMS,
    HASHED_AT_A_TIME,
    entries,
    sha256_of_file,
    sha256_of_folder,
    sha256_of_hashes,
)

_LINE = re.compile(rb"([0-9a-f]{64})  ([^\n]+)\n")


class Damage(NamedTuple):
    """A file that is not as it was written."""

    path: Path
    why: str
    """What was found, and what was expected."""

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


class Listed(NamedTuple):
    """What a list says."""

    hashes: dict[Path, str]
    """SHA-256 of each file."""
    damage: list[Damage]
    """The list itself, if a line of it cannot be read."""


def read_checksums(folder: Path) -> Listed:
    """Read the list in a folder; empty if it has none."""
    path = folder / CHECKSUMS
    hashes = {}
    for number, line in enumerate(_lines(path), start=1):
        match = _LINE.fullmatch(line)
        if not match:
            why = f"line {number} is {line[:100]!r}, expected the SHA-256 and the name of a file"
            return Listed({}, [Damage(path, why)])
        hashes[folder / match[2].decode(errors="replace")] = match[1].decode()
    return Listed(hashes, [])


def listed(path: Path) -> Listed:
    """The hashes of a file, or of those below a folder.

    They are in its own list, or in that of one of the two folders above, which is the newer one if
    both have a file: the list in models/export/LAYOUT may still be that of the report before.
    """
    lists = [read_checksums(folder) for folder in (path, path.parent, path.parent.parent)]
    hashes = {file: sha256 for one in lists for file, sha256 in one.hashes.items()}
    return Listed(
        {file: sha256 for file, sha256 in hashes.items() if file.is_relative_to(path)},
        [damage for one in lists for damage in one.damage],
    )


def damaged(*paths: Path) -> list[Damage]:
    """The files, and those below folders, that are not as they were written.

    A file that no list has is not compared (`listed`).
    """
    with ThreadPoolExecutor(HASHED_AT_A_TIME) as pool:
        return _results(_begin(pool, paths))


@contextmanager
def checked(*paths: Path) -> Iterator[None]:
    """The same in threads, beside the block that reads them.

    Raises:
        InputError: one is damaged; in place of the block's own error, whose cause it is then.
    """
    with ThreadPoolExecutor(HASHED_AT_A_TIME) as pool:
        compared = _begin(pool, paths)
        try:
            yield
        except Exception:
            _refuse(_results(compared))
            raise
        _refuse(_results(compared))


def check(*paths: Path) -> None:
    """The same at once, for what is small.

    Raises:
        InputError: one is damaged.
    """
    _refuse(damaged(*paths))


def identity(folder: Path) -> str:
    """`sha256_of_folder` by the folder's list, which whoever opens it compares; without a list, by
    the bytes themselves."""
    hashes, _ = read_checksums(folder)
    if not hashes:
        return sha256_of_folder(folder)
    return sha256_of_hashes({str(path.relative_to(folder)): hashes[path] for path in hashes})


def small_files(folder: Path) -> list[Path]:
    """The files of a verifier but its weights, for stages that read no weights."""
    return [path for path in entries(folder) if path.suffix != ".safetensors"]


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True) if path.is_file() else []


def _begin(pool: ThreadPoolExecutor, paths: tuple[Path, ...]) -> list[Future[Damage | None]]:
    lists = [listed(path) for path in paths]
    found = [damage for one in lists for damage in one.damage]
    files = {file: sha256 for one in lists for file, sha256 in one.hashes.items()}
    return [pool.submit(lambda damage=damage: damage) for damage in found] + [
        pool.submit(_compare, file, sha256) for file, sha256 in files.items()
    ]


def _compare(path: Path, expected: str) -> Damage | None:
    if not path.is_file():
        return Damage(path, f"there is no such file, and {CHECKSUMS} lists one")
    found = sha256_of_file(path)
    if found == expected:
        return None
    return Damage(path, f"its SHA-256 is {found}, expected {expected} by {CHECKSUMS}")


def _results(compared: list[Future[Damage | None]]) -> list[Damage]:
    return [damage for one in compared if (damage := one.result())]


def _refuse(found: list[Damage]) -> None:
    """Raises: InputError: there is damage."""
    if found:
        raise InputError(
            f"{found[0]}{and_more(found, 'other files')}. Its bytes changed after it was written; "
            "`python -m tools.verify` names what is damaged and the command that mends it"
        )
