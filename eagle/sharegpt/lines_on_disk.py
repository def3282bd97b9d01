"""Lines that a stage sorts out without holding them in memory."""

import os
import tempfile
from array import array
from collections.abc import Iterable
from pathlib import Path

from eagle.files import make_folder, naming, whole_file


class LinesOnDisk:
    """Lines that are kept on disk: appended once, and written out in any order."""

    def __init__(self, folder: Path):
        """Args: folder: on the disk to use; the file there has no name."""
        make_folder(folder)
        # the system removes it with the process, even if that is killed
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._folder = folder
        self._ends = array("q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, line: bytes) -> None:
        """Add a line, given without its line break."""
        with naming(self._folder):
            self._file.write(line + b"\n")
        self._ends.append(self._ends[-1] + len(line) + 1)

    def write(self, path: Path, numbers: Iterable[int]) -> None:
        """Write the lines with these numbers, in this order, to a file."""
        with naming(self._folder):
            self._file.flush()
        with whole_file(path) as partial, partial.open("wb") as file:
            for number in numbers:
                start, end = self._ends[number], self._ends[number + 1]
                # not memory-mapped: mapped pages count as memory of this process
                file.write(os.pread(self._file.fileno(), end - start, start))
