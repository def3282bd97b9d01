"""The files that a source of conversations consists of."""

from pathlib import Path

from eagle.errors import InputError
from eagle.files import check_file

PATTERNS = ("*.json", "*.jsonl", "*.parquet", "*.json.*", "*.jsonl.*")


def local_files(source: str) -> list[Path]:
    """The files of a source on this machine, a file or a folder, in the order of their names.

    Raises:
        InputError: there is no such file, or none of conversations in the folder.
    """
    path = Path(source)
    if path.is_dir():
        files = sorted({file for pattern in PATTERNS for file in path.rglob(pattern)})
        if not files:
            raise InputError(f"{source}: the folder holds no .json file of conversations")
        return files
    check_file(path)
    return [path]
