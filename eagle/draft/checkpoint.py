"""Drafts on disk: config.json and model.safetensors."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaConfig

from eagle.draft.draft import Draft, config_as_json
from eagle.errors import InputError
from eagle.files import read_json, sha256_of_file, sha256_of_json, whole_folder, write_json


def save_draft(draft: Draft, folder: Path) -> None:
    """Write config.json and model.safetensors. The folder appears only once both are complete."""
    save_weights(draft.config, draft.state_dict(), folder)


def save_weights(config: LlamaConfig, weights: dict[str, Tensor], folder: Path) -> None:
    """The same from a draft's config and weights."""
    with whole_folder(folder) as partial:
        write_json(partial / "config.json", config_as_json(config))
        weights = {name: tensor.cpu().contiguous() for name, tensor in weights.items()}
        save_file(weights, partial / "model.safetensors", metadata={"format": "pt"})


def load_draft(folder: Path) -> Draft:
    """Read a draft whose weights have the official layout's names; an embedding is left out.

    Raises:
        InputError: there is no draft, or its weights do not fit its config.
    """
    config = LlamaConfig(**read_json(folder / "config.json"))
    return draft_from_weights(config, read_weights(folder / "model.safetensors"), folder)


def draft_hash(folder: Path) -> str:
    """SHA-256 of the files that make a draft; a model card beside them does not count."""
    return sha256_of_json([sha256_of_file(path) for path in draft_files(folder)])


def draft_files(folder: Path) -> list[Path]:
    """The files that make a draft."""
    return [folder / "config.json", folder / "model.safetensors"]


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file.

    Raises:
        InputError: the file is absent or damaged.
    """
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file}: cannot be read: {error}; get it again") from None


def draft_from_weights(config: LlamaConfig, weights: dict[str, Tensor], folder: Path) -> Draft:
    """Build a draft from weights that have the official names; an embedding is left out.

    Args:
        folder: where the weights come from, for the message.

    Raises:
        InputError: names or shapes are not those of a draft with this config, or a weight is not
            finite.
    """
    draft = Draft(config)
    # the embedding is the verifier's, and decoding reads it there
    own = {name: weight for name, weight in weights.items() if name != "embed_tokens.weight"}
    try:
        draft.load_state_dict(own)
    except RuntimeError as error:
        raise InputError(f"{folder}: weights and config.json do not fit: {error}") from None
    for name, weight in own.items():
        if not weight.isfinite().all():
            raise InputError(
                f"{folder}: tensor {name} has numbers that are not finite (NaN or infinity), so "
                "the draft can predict nothing; get it again, or train it anew"
            )
    return draft
