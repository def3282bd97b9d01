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

KEPT_STATES = 2
"""One may turn out to be damaged."""


_STATE = "state-{:09d}"


@dataclass
class RunState:
    """Everything a run needs to go on as if it had not stopped."""

    update: int = 0
    """Updates done."""
    seconds: float = 0.0
    """Wall time of training so far."""
    best_validation_loss: float = float("inf")
    history: list[dict] = field(default_factory=list)
    validations: list[dict] = field(default_factory=list)

    def save(self, folder: Path, draft: Draft, optimizer: torch.optim.Optimizer) -> None:
        """Write state-<update>-<hash>.pt; the newest KEPT_STATES stay.

        The name carries the content's hash, so that file and hash appear in one rename.

        Raises:
            InputError: the disk is full; the states written before stay.
        """
        content = {
            "run": self.__dict__,
            "draft": draft.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        partial = folder / f".{_STATE.format(self.update)}.partial"
        try:
            torch.save(content, partial)
            digest = sha256_of_file(partial)[:16]
            os.replace(partial, folder / f"{_STATE.format(self.update)}-{digest}.pt")
        except (OSError, RuntimeError) as error:  # torch reports a short write as RuntimeError
            partial.unlink(missing_ok=True)
            # float32 weights and two moments as large
            needed = 3 * sum(tensor.nbytes for tensor in draft.state_dict().values())
            free = shutil.disk_usage(folder).free
            raise InputError(
                f"{folder}: the state after update {self.update} cannot be written: it needs "
                f"{needed / 1e6:,.0f} MB and {free / 1e6:,.0f} MB are free "
                f"({str(error).splitlines()[0]}). Make room and start the same command again: "
                f"it goes on from {_newest_name(folder)}"
            ) from None
        states = _states(folder)
        damaged = [path for path in states if _update_of(path) > self.update]  # resumed before them
        for path in damaged + states[len(damaged) + KEPT_STATES :]:
            path.unlink()

    @classmethod
    def resume(cls, folder: Path, draft: Draft, optimizer: torch.optim.Optimizer) -> "RunState":
        """The newest whole state, put into draft and optimizer; a fresh one when there is none.

        A state whose bytes are not those that were written is passed over, and said; the next
        `save` removes it.
        """
        for path in _states(folder):
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


def _states(folder: Path) -> list[Path]:
    """States in a run folder, the newest first."""
    return sorted(folder.glob("state-*.pt"), reverse=True)


def _update_of(state: Path) -> int:
    return int(state.stem.split("-")[1])


def _newest_name(folder: Path) -> str:
    return next((path.name for path in _states(folder)), "the beginning")
