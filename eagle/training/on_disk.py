"""States and feature caches on disk: where they are, and which are whole; without torch."""

import os
from pathlib import Path

from eagle.files import entries, sha256_of_file

LOCK = "lock"
"""The file in a cache that a process has locked: alone while it fills the cache, together with
others while it reads it. What is locked is not removed."""


def find_states(folder: Path) -> list[Path]:
    """The states in a run folder, newest first: state-<update>-<beginning of the SHA-256>.pt."""
    return entries(folder, "state-*.pt")[::-1]


def newest_state(folder: Path) -> str:
    """The name of the newest state in a run folder, for messages."""
    return next((path.name for path in find_states(folder)), "the beginning")


def update_of(state: Path) -> int:
    """The number of updates after which a state was written."""
    return int(state.stem.split("-")[1])


def damage_of_state(state: Path) -> str | None:
    """What was found in a state and what its name says, if that differs."""
    found, expected = sha256_of_file(state)[:16], state.stem.split("-")[-1]
    if found == expected:
        return None
    return f"its SHA-256 begins with {found}, expected {expected} by its name"


def cache_folder() -> Path:
    """$EAGLE_CACHE, or .cache/eagle of the main checkout, also from DVC's temporary checkouts."""
    if "EAGLE_CACHE" in os.environ:
        return Path(os.environ["EAGLE_CACHE"])
    here = Path.cwd()
    # MAIN/.dvc/tmp/exps/CHECKOUT
    parents = [path for path in here.parents if path.name == "exps" and ".dvc" in path.parts]
    main = parents[0].parents[2] if parents else here
    return main / ".cache" / "eagle"
