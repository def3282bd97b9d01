"""Drafts on disk, and the state from which an interrupted run goes on."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaConfig

from eagle.draft.draft import Draft, config_as_json
from eagle.errors import InputError
from eagle.files import read_json, whole_folder, write_json


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
