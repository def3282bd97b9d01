"""The state from which an interrupted run goes on."""

import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch

from eagle.draft.draft import Draft
from eagle.errors import InputError
from eagle.files import sha256_of_file

# Two, because one may turn out to be damaged.
KEPT_STATES = 2
_NAME = "state-{:09d}"


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

    def save(self, folder: Path, draft: Draft, optimizer: torch.optim.Optimizer) -> None:
        """Write state-<update>-<hash>.pt, and remove all but the newest KEPT_STATES.

        The hash of the content is in the name, so that file and hash appear in one rename.

        Raises:
            InputError: the disk is full; the states written before stay.
        """
        content = {
            "run": vars(self),
            "draft": draft.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        partial = folder / f".{_NAME.format(self.update)}.partial"
        try:
            torch.save(content, partial)
            digest = sha256_of_file(partial)[:16]
            os.replace(partial, folder / f"{_NAME.format(self.update)}-{digest}.pt")
        except (OSError, RuntimeError) as error:  # torch reports a short write as RuntimeError
            partial.unlink(missing_ok=True)
            # float32 weights and two moments of the same size
            needed = 3 * sum(tensor.nbytes for tensor in draft.state_dict().values())
            free = shutil.disk_usage(folder).free
            raise InputError(
                f"{folder}: the state after update {self.update} cannot be written: it needs "
                f"{needed / 1e6:,.0f} MB and {free / 1e6:,.0f} MB are free "
                f"({str(error).splitlines()[0]}). Make room and start the same command again: "
                f"it goes on from {_newest_name(folder)}"
            ) from None
        states = find_states(folder)
        # states of later updates are damaged: the run went on from one before them
        damaged = [path for path in states if _update_of(path) > self.update]
        for path in damaged + states[len(damaged) + KEPT_STATES :]:
            path.unlink()

    @classmethod
    def resume(cls, folder: Path, draft: Draft, optimizer: torch.optim.Optimizer) -> "RunState":
        """Load the newest intact state into draft and optimizer; without one, a fresh state.

        A state whose bytes changed after it was written is skipped with a message; the next `save`
        removes it.
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


def find_states(folder: Path) -> list[Path]:
    """The states in a run folder, newest first."""
    return sorted(folder.glob("state-*.pt"), reverse=True)


def _update_of(state: Path) -> int:
    return int(state.stem.split("-")[1])


def _newest_name(folder: Path) -> str:
    return next((path.name for path in find_states(folder)), "the beginning")
