"""Write files so that each is complete or absent; read JSON; compute hashes."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from eagle.errors import InputError, error_of_system

CHECKSUMS = "SHA256SUMS.txt"
"""The list in a folder of the files in it, as `sha256sum --check` reads it; `eagle.checksums`
compares them."""
HASHED_AT_A_TIME = 4
"""Files: hashing leaves Python's lock to other threads, and takes a second for one or two GB."""
LONGEST_LINE = 2**25  # bytes of JSON; decoded, many small values take thirty times as much memory


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `path`, with its CHECKSUMS, if the block ends without an
    error.

    `path` is complete or absent at any moment. Once it is replaced, no power cut takes it.

    Raises:
        OSError: of the system, with the name of a file or of `path`.
    """
    partial, replaced = (path.with_name(f".{path.name}.{end}") for end in ("partial", "replaced"))
    with naming(path):
        _remove(partial)  # what a kill left
        _remove(replaced)
        make_folder(path.parent)
        partial.mkdir()
        try:
            yield partial
            write_checksums(partial, hashes_of(partial))
            _settle(partial)
            there = os.path.lexists(path)
            if there:
                os.replace(path, replaced)
            try:
                put_in_place(partial, path)
            except BaseException:
                if there and not path.exists():
                    os.replace(replaced, path)
                raise
        finally:
            _remove(partial)
        _remove(replaced)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path; its file replaces `path` if the block ends without an error.

    Once it is replaced, no power cut takes it.

    Raises:
        OSError: of the system, with the name of a file or of `path`.
    """
    with naming(path):
        make_folder(path.parent)
        partial = path.with_name(f".{path.name}.partial")
        try:
            yield partial
            put_in_place(partial, path)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def whole_files(folder: Path) -> Iterator[Path]:
    """Yield an empty folder whose files replace those of their names in `folder` at the end.

    For a folder to which another stage writes as well. No power cut takes the files then.

    Raises:
        OSError: of the system, with the name of a file or of `folder`.
    """
    partial = folder / ".partial"  # in it: what lies beside it may be on another disk
    with naming(folder):
        _remove(partial)
        make_folder(folder)
        partial.mkdir()
        try:
            yield partial
            _settle(partial)
            for path in entries(partial):
                os.replace(path, folder / path.name)
            sync(folder)
        finally:
            _remove(partial)


def put_in_place(partial: Path, path: Path) -> None:
    """Give a finished file or folder its name, its content first: both are on disk afterwards."""
    sync(partial)
    os.replace(partial, path)
    sync(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, if they are not there; no power cut takes them."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync(folder.parent)


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # some file systems of networks have no fsync of folders
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or path.is_file():
            raise
    finally:
        os.close(descriptor)


def reserve(path: Path, size: int) -> bool:
    """Make a file of `size` bytes that are all on the disk, for a memory map to be written.

    Where they are not, a disk that becomes full ends the process with SIGBUS.

    Returns:
        Whether they are; some file systems, and macOS, cannot reserve.
    """
    with naming(path), path.open("wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
            return True
        except AttributeError:
            pass
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        file.truncate(size)
        return False


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file in the system's errors that name none, as those of writing to an open file.

    Raises:
        OSError: in place of any exception that the system's error is in (`error_of_system`).
    """
    try:
        yield
    except Exception as error:
        found = error_of_system(error)
        if found is None or found.filename is not None:
            raise
        raise OSError(found.errno, found.strerror, str(path)) from error


def _settle(folder: Path) -> None:
    """Have all that is below a folder on disk, in files with the mode of any new file."""
    mode = folder.stat().st_mode & 0o666
    for path in all_below(folder):
        if path.is_file():
            path.chmod(mode)  # safetensors makes files that only their owner may read
        sync(path)


def _remove(path: Path) -> None:
    """Remove a folder or a link, as far as the system lets us."""
    if path.is_symlink():
        path.unlink()
    shutil.rmtree(path, ignore_errors=True)


def entries(folder: Path, pattern: str = "*") -> list[Path]:
    """What is in a folder and has a name by this pattern, sorted; nothing if there is no folder.

    Raises:
        OSError: the folder cannot be read, which Path.glob takes for an empty one.
    """
    inside = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in inside if path.match(pattern))


def all_below(folder: Path) -> list[Path]:
    """Files and folders below a folder, sorted; nothing if there is no folder.

    Raises:
        OSError: one cannot be read, which Path.rglob takes for an empty one.
    """

    def refuse(error: OSError) -> NoReturn:
        raise error

    if not folder.is_dir():
        return []
    return sorted(
        Path(parent, name)
        for parent, folders, files in os.walk(folder, onerror=refuse)
        for name in (*folders, *files)
    )


def write_text(path: Path, text: str) -> None:
    """Write a text file as UTF-8."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, indented."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_json_lines(path: Path, rows: list[dict]) -> None:
    """Write a file of one JSON object a line."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_json(path: Path) -> Any:
    """Parse one JSON file.

    Raises:
        InputError: the file is absent, empty, not UTF-8 or not JSON.
    """
    return _parse_json(_read_text(path), str(path))


def read_json_lines(path: Path) -> list[dict]:
    """A list of all that `json_lines` yields."""
    return list(json_lines(path))


def json_lines(path: Path) -> Iterator[dict]:
    """Read a file of one JSON object a line, one object at a time; blank lines are skipped.

    Raises:
        InputError: the file is absent, empty, not UTF-8, or a line is not a JSON object or longer
            than LONGEST_LINE.
    """
    check_file(path)
    empty = True
    with path.open("rb") as file:
        lines = iter(lambda: file.readline(LONGEST_LINE + 1), b"")
        for number, line in enumerate(lines, start=1):
            if len(line) > LONGEST_LINE:
                raise InputError(
                    f"{path}, line {number}: longer than {LONGEST_LINE:,} bytes; expected one JSON "
                    "object a line"
                )
            if line.strip():
                empty = False
                yield parse_json_line(line, f"{path}, line {number}")
    if empty:
        raise InputError(f"{path}: the file is empty; expected JSON")


def parse_json_line(line: bytes, where: str) -> dict:
    """Parse one line of JSON lines.

    Args:
        where: file and line, with which an error's message begins.

    Raises:
        InputError: the line is not UTF-8, or not a JSON object.
    """
    try:
        return _parse_json_object(line.decode(), where)
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8 text ({error.reason})") from None


def check_file(path: Path) -> int:
    """The size of a file in bytes.

    Raises:
        InputError: the path is absent, or no regular file.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder, expected a file")
    if not path.exists():
        raise InputError(f"{path}: there is no such file; check the path")
    if not path.is_file():  # opening a pipe would wait for ever
        raise InputError(f"{path}: is a pipe or a device, expected a file")
    return path.stat().st_size


def check_inside(path: Path, folder: Path) -> None:
    """Check that a file of a folder of data is in it, and no link to what lies elsewhere.

    Raises:
        InputError: it leads out of the folder.
    """
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(
            f"{path}: a link that leads out of {folder}; put the file itself there, or name it "
            "alone in place of the folder"
        )


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_json(content: Any) -> str:
    """SHA-256 of a value's JSON with sorted keys, in hexadecimal."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sha256_of_folder(folder: Path) -> str:
    """SHA-256 of the relative names and contents of all files (`files_below`)."""
    return sha256_of_hashes(hashes_of(folder))


def sha256_of_hashes(hashes: dict[str, str]) -> str:
    """SHA-256 of names and hashes of files, in the order of the names."""
    lines = [f"{name}\0{hashes[name]}\n" for name in sorted(hashes, key=Path)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def hashes_of(folder: Path) -> dict[str, str]:
    """Relative name and SHA-256 of each file (`files_below`)."""
    paths = files_below(folder)
    with ThreadPoolExecutor(HASHED_AT_A_TIME) as pool:
        hashes = pool.map(sha256_of_file, paths)
        return {str(path.relative_to(folder)): h for path, h in zip(paths, hashes, strict=True)}


def files_below(folder: Path) -> list[Path]:
    """All files below a folder but CHECKSUMS and hidden ones, where a hub client notes things."""
    return [
        path
        for path in all_below(folder)
        if path.is_file()
        and path.name != CHECKSUMS
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def write_checksums(folder: Path, hashes: dict[str, str]) -> None:
    """Write a folder's CHECKSUMS.

    Args:
        hashes: relative name and SHA-256 of each file in it.
    """
    lines = [f"{hashes[name]}  {name}\n" for name in sorted(hashes)]
    write_text(folder / CHECKSUMS, "".join(lines))


def _read_text(path: Path) -> str:
    check_file(path)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); "
            "expected a JSON text file"
        ) from None
    if not text.strip():
        raise InputError(f"{path}: the file is empty; expected JSON")
    return text


def _parse_json_object(line: str, where: str) -> dict:
    row = _parse_json(line, where)
    if not isinstance(row, dict):
        raise InputError(
            f"{where}: found a JSON {type(row).__name__}, expected one JSON object a line"
        )
    return row


def _parse_json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        cut_off = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated")
        raise not_json(where, error.lineno, error.colno, error.msg, cut_off) from None
    except RecursionError:
        raise InputError(f"{where}: JSON nested too deeply to be read") from None
    except ValueError:  # Python's own limit on the digits of an integer
        raise InputError(f"{where}: JSON with a number of thousands of digits") from None


def not_json(where: str, line: int, column: int, message: str, cut_off: bool) -> InputError:
    """The error for text that is not JSON; `cut_off` if it seems to end too early."""
    return InputError(
        f"{where}: not valid JSON at line {line}, column {column}: {message}"
        + ("; the file seems to be cut off: get it again" if cut_off else "")
    )
