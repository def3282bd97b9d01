"""Drafts on disk, and the state from which an interrupted run goes on."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig

from eagle.draft import Draft, config_as_json
from eagle.errors import InputError
from eagle.files import read_json, whole_file, whole_folder, write_json


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
    draft = Draft(config)
    try:
        weights = load_file(folder / "model.safetensors")
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder}/model.safetensors: cannot be read: {error}") from None
    weights.pop("embed_tokens.weight", None)  # the verifier's own, which decoding uses
    try:
        draft.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"{folder}: weights and config.json do not fit: {error}") from None
    return draft


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

    def save(self, path: Path, draft: Draft, optimizer: torch.optim.Optimizer) -> None:
        content = {
            "run": self.__dict__,
            "draft": draft.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        with whole_file(path) as partial:
            torch.save(content, partial)

    @classmethod
    def resume(cls, path: Path, draft: Draft, optimizer: torch.optim.Optimizer) -> "RunState":
        """The state saved at `path`, put into draft and optimizer; a fresh one when absent."""
        if not path.is_file():
            return cls()
        content = torch.load(path, map_location="cpu", weights_only=True)
        draft.load_state_dict(content["draft"])
        optimizer.load_state_dict(content["optimizer"])
        return cls(**content["run"])
