"""The state from which an interrupted run goes on."""

import hashlib
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import pandas as pd
import torch

from eagle.draft.draft import Draft
from eagle.files import naming, put_in_place
from eagle.training.on_disk import damage_of_state, find_states, update_of

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

        A state whose bytes changed after it was written is skipped with a message, and one that
        came after the best draft if that was lost: training must write it again. The next state
        that is written removes them.
        """
        for path in find_states(folder):
            why = damage_of_state(path)
            if why is None:
                content = torch.load(path, map_location="cpu", weights_only=True)
                if not (folder / "best").is_dir():
                    why = _why_best_stays_lost(folder, content["run"])
            if why is not None:
                print(
                    f"{path}: {why}; the state before it is used, or none",
                    file=sys.stderr,
                    flush=True,
                )
                continue
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
    damaged = [path for path in states if update_of(path) > update]
    for path in damaged + states[len(damaged) + KEPT_STATES :]:
        path.unlink()


def _why_best_stays_lost(folder: Path, run: dict) -> str | None:
    """Why going on from a state would not write the best draft again, if it would not."""
    table = folder / "validations.csv"  # of a run that has ended
    rows = pd.read_csv(table).to_dict("records") if table.is_file() else run["validations"]
    best = min(rows, key=lambda row: row["validation_loss"], default=None)
    if best is None or best["update"] >= run["update"]:  # a state is written before the validation
        return None
    return f"the best draft is lost, and it was that of update {best['update']:.0f}, before this"


class _HashedFile:
    """A file that is written from its beginning to its end, as torch does."""

    def __init__(self, file: BinaryIO):
        self.file, self.digest = file, hashlib.sha256()

    def write(self, part: memoryview) -> int:
        self.digest.update(part)
        return self.file.write(part)

    def flush(self) -> None:
        self.file.flush()
