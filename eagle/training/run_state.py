"""The state from which an interrupted run goes on."""

import hashlib
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import torch

from eagle.draft.draft import Draft
from eagle.files import naming, put_in_place, sha256_of_file

# Two, because one may turn out to be damaged.
KEPT_STATES = 2


@dataclass
class RunState:
    """With weights and optimizer, all that a run needs to go on as if it had not stopped."""

    update: int = 0
    """Number of updates done."""
    seconds: float = 0.0
    """Wall time of training so far."""
    best_validation_loss: float = float("inf")
    history: list[dict] = field(default_factory=list)
    """A row for every update (eagle/training/history.py)."""
    validations: list[dict] = field(default_factory=list)
    """A row for every validation (eagle/training/validation.py), with its update."""

    def content(self, draft: Draft, optimizer: torch.optim.Optimizer) -> dict:
        """All that `write_state` writes; weights and moments are not copied."""
        return {
            "run": vars(self),
            "draft": draft.state_dict(),
            "optimizer": optimizer.state_dict(),
        }

    @classmethod
    def resume(cls, folder: Path, draft: Draft, optimizer: torch.optim.Optimizer) -> "RunState":
        """Load the newest intact state into draft and optimizer; without one, a fresh state.

        A state whose bytes changed after it was written is skipped with a message; the next state
        that is written removes it.
        """
        for path in find_states(folder):
            if sha256_of_file(path)[:16] != path.stem.split("-")[-1]:
                print(
                    f"{path}: its bytes changed after it was written; the state before it is used",
                    file=sys.stderr,
                    flush=True,
                )
                continue
            content = torch.load(path, map_location="cpu", weights_only=True)
            draft.load_state_dict(content["draft"])
            optimizer.load_state_dict(content["optimizer"])
            return cls(**content["run"])
        return cls()


def write_state(folder: Path, content: dict) -> None:
    """Write state-<update>-<hash>.pt, and remove all but the newest KEPT_STATES.

    The hash is computed while the file is written, and is in its name, so that file and hash appear
    in one rename. No power cut takes it then; the states before it are removed only afterwards.

    Args:
        content: `RunState.content`, which nothing changes meanwhile.

    Raises:
        OSError: of the system, as when the disk is full; the states written before stay.
    """
    update = content["run"]["update"]
    # the same name for every state: what a kill leaves is overwritten by the next one
    partial = folder / ".state.partial"
    with naming(partial):
        try:
            with partial.open("wb") as file:
                hashed = _HashedFile(file)
                torch.save(content, hashed)
            name = f"state-{update:09d}-{hashed.digest.hexdigest()[:16]}.pt"
            put_in_place(partial, folder / name)
        finally:
            partial.unlink(missing_ok=True)
    states = find_states(folder)
    # states of later updates are damaged: the run went on from one before them
    damaged = [path for path in states if _update_of(path) > update]
    for path in damaged + states[len(damaged) + KEPT_STATES :]:
        path.unlink()


class _HashedFile:
    """A file that is written from its beginning to its end, as torch does."""

    def __init__(self, file: BinaryIO):
        self.file, self.digest = file, hashlib.sha256()

    def write(self, part: memoryview) -> int:
        self.digest.update(part)
        return self.file.write(part)

    def flush(self) -> None:
        self.file.flush()


def find_states(folder: Path) -> list[Path]:
    """The states in a run folder, newest first."""
    return sorted(folder.glob("state-*.pt"), reverse=True)


def newest_state(folder: Path) -> str:
    """The name of the newest state in a run folder, for messages."""
    return next((path.name for path in find_states(folder)), "the beginning")


def _update_of(state: Path) -> int:
    return int(state.stem.split("-")[1])
