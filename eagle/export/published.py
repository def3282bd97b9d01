"""Drafts that others published, in the official layout: mostly as a pickle, with a bias."""

import pickle
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoConfig, LlamaConfig

from eagle.draft.checkpoint import draft_of, read_weights
from eagle.draft.draft import Draft, check_fit
from eagle.errors import InputError
from eagle.files import read_json
from eagle.hub import snapshot


def read_published(folder: Path, verifier_folder: Path, allow_pickle: bool) -> Draft:
    """A draft in the official layout, as SafeAILab/EAGLE and others publish them.

    Their config.json leaves "bias" to its default, which is what the weights have; rope as well,
    which then is the Llama default of base 10,000. Those for Qwen2 have biases of queries, keys
    and values.

    Args:
        allow_pickle: read pytorch_model.bin where there is no model.safetensors; weights only.

    Raises:
        InputError: no such draft, only a pickle and not allowed, damaged, or another verifier's.
    """
    verifier = AutoConfig.from_pretrained(verifier_folder)
    fields = read_json(folder / "config.json")
    if not isinstance(fields, dict):
        raise InputError(f"{folder / 'config.json'}: expected a model's settings, found a list")
    weights = _published_weights(folder, allow_pickle)
    defaults = {
        "bias": "fc.bias" in weights,
        "qkv_bias": "layers.0.self_attn.q_proj.bias" in weights,
        "vocab_size": verifier.vocab_size,
        "max_position_embeddings": verifier.max_position_embeddings,
    }
    try:
        config = LlamaConfig(**defaults | fields)
    except Exception as error:  # transformers raises whatever its checks of a field do
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{folder / 'config.json'}: not a Llama config: {reason}") from None
    check_fit(config, verifier, str(folder))
    return draft_of(config, weights, folder)


def _published_weights(folder: Path, allow_pickle: bool) -> dict[str, Tensor]:
    safe, pickled = folder / "model.safetensors", folder / "pytorch_model.bin"
    if not safe.is_file() and not allow_pickle:
        raise InputError(
            f"{folder}: no model.safetensors. If the draft is published as pytorch_model.bin, a "
            "pickle, allow it with --allow-pickle: its tensors are read and nothing else"
        )
    if safe.is_file():
        weights = read_weights(safe)
    else:
        try:
            weights = torch.load(pickled, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            reason = " ".join(str(error).split())[:160]
            raise InputError(f"{pickled}: not a whole file of tensors: {reason}") from None
        if not isinstance(weights, dict) or not all(map(torch.is_tensor, weights.values())):
            raise InputError(f"{pickled}: not a whole file of tensors: it holds something else")
    # buffers that older transformers stored with the weights; they follow from the config
    return {name: tensor for name, tensor in weights.items() if not name.endswith("inv_freq")}


def fetch_draft(source: str, revision: str | None, pickled: bool, folder: Path) -> Path:
    """The folder of a published draft: path:FOLDER itself, or hub:OWNER/NAME put into `folder`.

    Args:
        revision: the hub commit; unused for a local folder.
        pickled: fetch pytorch_model.bin as well.

    Raises:
        InputError: no such folder or repository, or the hub cannot be reached.
    """
    kind, _, name = source.partition(":")
    if kind == "hub":
        patterns = ["config.json", "model.safetensors"] + ["pytorch_model.bin"] * pickled
        snapshot(name, revision, folder, patterns, source)
        return folder
    if not Path(name).is_dir():
        raise InputError(f"{source}: there is no such folder; give path:FOLDER or hub:OWNER/NAME")
    return Path(name)
