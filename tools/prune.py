"""What old runs and caches take on the disk, and their removal.

    python -m tools.prune                              # list everything, then ask
    python -m tools.prune states features --older 7    # some kinds, unused for a week
    python -m tools.prune runs --yes                   # without asking

The kinds are `runs` (folders in runs/: what an interrupted training goes on from, and what a
finished one published), `states` (of finished runs only, whose drafts stay), `features` (caches in
$EAGLE_CACHE or .cache/eagle, which cost the verifier's forwards again) and `sweeps` (logs in
runs/sweep). Published results (models/, results/) and DVC's own cache are left alone; `dvc gc`
cleans that. A run in progress is never touched, and while one is, no feature cache.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from eagle.command_line import parser
from eagle.errors import InputError, one_clear_message
from eagle.file_lock import Held, file_lock
from eagle.training.on_disk import LOCK, cache_folder, find_states
from eagle.training.run_identity import DRAFT_FOLDERS, RESULT_FILES

RUNS = Path("runs")
KINDS = ("runs", "states", "features", "sweeps")


class Item(NamedTuple):
    kind: str
    name: str
    what: str
    paths: list[Path]
    """Files and folders that are removed together."""
    lock: Path | None
    """Held by whoever works on them."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        files = (file for path in self.paths for file in (path, *path.rglob("*")))
        return sum(file.lstat().st_size for file in files if file.is_file())

    @property
    def used(self) -> float:
        """When it was written or used last, in seconds since 1970."""
        return max(path.stat().st_mtime for path in self.paths)

    @property
    def busy(self) -> bool:
        if self.lock is None or not self.lock.exists():
            return False
        try:
            with file_lock(self.lock, wait=False):
                return False
        except Held:
            return True


def items() -> Iterator[Item]:
    """All that can be removed."""
    for lock in sorted(RUNS.glob("*/lock")):
        run = lock.parent
        finished = all((run / name).exists() for name in (*DRAFT_FOLDERS, *RESULT_FILES))
        states = find_states(run)
        what = "finished" if finished else "unfinished, would go on" if states else "no state yet"
        yield Item("runs", run.name, what, [run], lock)
        if finished and states:
            yield Item("states", run.name, "of a finished run", states, lock)
    for folder in sorted(cache_folder().glob("*")):
        if folder.is_dir():
            partial = folder.name.startswith(".")
            what = "not complete" if partial else "cache"
            yield Item("features", folder.name, what, [folder], folder / LOCK)
    for log in sorted((RUNS / "sweep").glob("*.log")):
        yield Item("sweeps", log.stem, "log", [log], None)


def removable(kinds: list[str], days: float) -> tuple[list[Item], list[Item]]:
    """The items of these kinds that were not used for so many days, and those that are in use."""
    found = list(items())
    busy = [item for item in found if item.busy]
    free = [
        item
        for item in found
        if item.kind in kinds
        and item not in busy
        and time.time() - item.used >= days * 86_400
        and not (busy and item.kind == "features")
    ]
    if "runs" in kinds:  # whole runs, their states among them
        runs = {item.name for item in free if item.kind == "runs"}
        free = [item for item in free if item.kind != "states" or item.name not in runs]
    return free, busy


def remove(item: Item) -> bool:
    """Remove an item; false if a training took it up meanwhile."""
    try:
        with file_lock(item.lock, wait=False) if item.lock else nullcontext():
            for path in item.paths:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        return True
    except Held:
        return False


def show(found: list[Item]) -> None:
    table = Table("kind", "name", "what", "unused for", "size")
    for item in found:
        days = (time.time() - item.used) / 86_400
        age = f"{days:.0f} days" if days >= 2 else f"{24 * days:.0f} hours"
        table.add_row(item.kind, item.name, item.what, age, f"{item.size / 1e6:,.1f} MB")
    Console().print(table)


def agreed(question: str) -> bool:
    """Whether the user says yes; what cannot answer says no."""
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False


def main() -> None:
    options = parser("tools.prune", __doc__)
    options.add_argument("kind", nargs="*", help=f"of {', '.join(KINDS)}; none: all of them")
    options.add_argument(
        "--older", type=float, default=0, metavar="DAYS", help="unused for so long"
    )
    options.add_argument("--yes", action="store_true", help="remove without asking")
    given = options.parse_args()
    if unknown := sorted(set(given.kind) - set(KINDS)):
        raise InputError(f"{unknown[0]}: no such kind; choose from {', '.join(KINDS)}")
    found, busy = removable(given.kind or list(KINDS), given.older)
    for name in sorted({item.name for item in busy}):
        print(f"prune: {name} is in progress; it and all feature caches stay")
    if not found:
        print("prune: nothing to remove")
        return
    show(found)
    total = sum(item.size for item in found)
    if not given.yes and not agreed(f"Remove these {len(found)}, {total / 1e6:,.1f} MB? [y/N] "):
        print("prune: nothing was removed")
        return
    freed = sum(size for item in found if (size := item.size) and remove(item))
    print(f"prune: {freed / 1e6:,.1f} MB removed")


if __name__ == "__main__":
    with one_clear_message():
        main()
