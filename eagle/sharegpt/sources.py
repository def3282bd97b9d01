"""Sources of conversations: their files, and how much of each is taken."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from eagle.config import WeightedSource
from eagle.errors import InputError
from eagle.files import all_below, check_file, check_inside
from eagle.hub import fetch_dataset_file

PATTERNS = ("*.json", "*.jsonl", "*.parquet", "*.json.*", "*.jsonl.*")


class Source(NamedTuple):
    name: str
    """A file, a folder, or hub:OWNER/NAME/FILE."""
    revision: str | None
    weight: float
    """Share of its usable conversations that is taken."""

    @property
    def on_hub(self) -> bool:
        return self.name.startswith("hub:")

    def files(self) -> list[Path]:
        """In the order of their names; one of the hub is downloaded if necessary.

        Raises:
            InputError: there is none.
        """
        if self.on_hub:
            return [fetch_dataset_file(self.name, self.revision, f"sharegpt.source = {self.name}")]
        return local_files(self.name)

    def file_within(self, file: Path) -> str:
        """A file's path within the folder that is the source; the name of a single file."""
        inside = file.is_relative_to(self.name) and file != Path(self.name)
        return str(file.relative_to(self.name)) if inside else file.name


def sources_of(stated: str | Sequence[WeightedSource], revision: str | None) -> list[Source]:
    """The sources that `sharegpt.source` and `sharegpt.revision` state."""
    if isinstance(stated, str):
        return [Source(stated, revision, 1.0)]
    return [Source(one.source, one.revision, one.weight) for one in stated]


def local_files(source: str) -> list[Path]:
    """The files of a source on this machine, a file or a folder, in the order of their names.

    Raises:
        InputError: there is no such file, or none of conversations in the folder, or a link there
            leads out of it.
    """
    path = Path(source)
    if path.is_dir():
        files = [file for file in all_below(path) if any(map(file.match, PATTERNS))]
        if not files:
            raise InputError(f"{source}: the folder holds no .json file of conversations")
        for file in files:
            check_inside(file, path)
        return files
    check_file(path)
    return [path]
