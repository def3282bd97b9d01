"""Drafts on disk, and the state from which an interrupted run goes on."""

import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaConfig

from eagle.draft import Draft, config_as_json
from eagle.errors import InputError
from eagle.files import read_json, sha256_of_file, whole_folder, write_json


def save_draft(draft: Draft, folder: Path) -> None:
    """Write config.json and float32 model.safetensors; the folder is whole or absent."""
    with whole_folder(folder) as partial:
        write_json(partial / "config.json", config_as_json(draft.config))
        weights = {name: tensor.cpu().contiguous() for name, tensor in draft.state_dict().items()}
        save_file(weights, partial / "model.safetensors", metadata={"format": "pt"})


def load_draft(folder: Path) -> Draft:
    """Read a draft in the official layout's names; an embedding beside it is passed over.

    Raises:
        InputError: no draft there, or weights that do not fit its config.
    """
    config = LlamaConfig(**read_json(folder / "config.json"))
    return draft_of(config, read_weights(folder / "model.safetensors"), folder)


def read_weights(file: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file.

    Raises:
        InputError: absent, cut off or no such file.
    """
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file}: cannot be read: {error}; get it again") from None


def draft_of(config: LlamaConfig, weights: dict[str, Tensor], folder: Path) -> Draft:
    """A draft with these weights under the official names; an embedding is passed over.

    Args:
        folder: where they come from, for the message.

    Raises:
        InputError: names or shapes are not those of a draft with this config.
    """
    draft = Draft(config)
    weights.pop("embed_tokens.weight", None)  # the verifier's own, which decoding uses
    try:
        draft.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"{folder}: weights and config.json do not fit: {error}") from None
    return draft


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
