"""Find damaged files: compare all that this project and DVC's cache keep with their hashes.

    python -m tools.verify                      # each damaged file, and the command that mends it
    python -m tools.verify models/export/vllm   # an exported draft, or a downloaded one

It reads every output in dvc.lock, object in DVC's cache, run, state, feature cache and journal.
DVC itself trusts a file whose time and size are as they were, so a bit that flipped on the disk
passes it. Of an exported draft, the tool also says which commit, parameters, data and verifier made
it, and whether they are those of this checkout. The exit code is 1 if something is damaged or does
not agree.
"""

import hashlib
import os
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo

from eagle.command_line import parser
from eagle.errors import InputError, one_clear_message
from eagle.tracking import Progress
from tools.kept_files import Damaged, Kept, kept_files
from tools.verify_export import verify_export

BLOCK = 2**20


def damaged_files(repo: Repo) -> tuple[list[Damaged], str]:
    """All that is damaged, and how much was compared."""
    all_files = list(kept_files(repo))
    kept = [file for file in all_files if isinstance(file, Kept)]
    found = [file for file in all_files if isinstance(file, Damaged)]
    hashes = hashes_of({(file.path, file.algorithm) for file in kept})
    wrong = [f for f in kept if not hashes[f.path, f.algorithm].startswith(f.expected)]
    paths = {file.path for file in wrong}
    for file in wrong:
        value = hashes[file.path, file.algorithm][: len(file.expected)]
        why = f"its {file.algorithm} is {value}, expected {file.expected} by {file.by}"
        found.append(Damaged(file.path, why, file.mend(paths)))
    return found, f"{len({file.path for file in kept}):,} files"


def hashes_of(wanted: Iterable[tuple[Path, str]]) -> dict[tuple[Path, str], str]:
    """Hashes of files by algorithm, with all cores; what several names link to is read once."""
    by_place = {}
    for path, algorithm in wanted:
        status = path.stat()
        place = (status.st_dev, status.st_ino, algorithm)
        by_place.setdefault(place, (status.st_size, []))[1].append(path)
    work = sorted(by_place.items(), key=lambda item: -item[1][0])
    total = sum(size for size, _ in by_place.values())
    found = {}
    with Progress("verify", total / 1e6, "MB") as progress, ThreadPoolExecutor(os.cpu_count()) as p:

        def hashed(path: Path, algorithm: str) -> str:
            digest = hashlib.new(algorithm, usedforsecurity=False)
            with path.open("rb") as file:
                while block := file.read(BLOCK):
                    digest.update(block)
                    progress.advance(len(block) / 1e6)
            return digest.hexdigest()

        results = p.map(lambda item: hashed(item[1][1][0], item[0][2]), work)
        for ((_, _, algorithm), (_, paths)), value in zip(work, results, strict=True):
            found |= {(path, algorithm): value for path in paths}
    return found


def verify_project() -> int:
    """Print what is damaged in this project; returns the exit code."""
    started = time.monotonic()
    try:
        repo = Repo()
    except DvcException as error:
        raise InputError(f"this is not a checkout of the project: {error}") from None
    with repo:
        found, compared = damaged_files(repo)
    for damage in found:
        print(f"{damage.path}: {damage.why}\n    mend it with: {damage.mend}")
    seconds = time.monotonic() - started
    print(f"verify: {compared} compared in {seconds:.1f} s, {len(found):,} damaged")
    return 1 if found else 0


def main() -> int:
    options = parser("tools.verify", __doc__)
    options.add_argument("folder", nargs="?", type=Path, help="of an exported draft")
    folder = options.parse_args().folder
    return verify_export(folder) if folder else verify_project()


if __name__ == "__main__":
    with one_clear_message():
        sys.exit(main())
