"""Published drafts in the official layout; most of them are a pickle and have a bias."""

import pickle
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoConfig, LlamaConfig

from eagle.draft.checkpoint import draft_from_weights, read_weights
from eagle.draft.draft import Draft, check_fit
from eagle.errors import InputError
from eagle.files import read_json
from eagle.hub import snapshot


def read_published(folder: Path, verifier_folder: Path, allow_pickle: bool) -> Draft:
    """Read a draft in the official layout, as SafeAILab/EAGLE and others publish them.

    Their config.json mostly leaves out "bias" and "qkv_bias", which then follow from the weights
    (drafts for Qwen2 have biases of queries, keys and values), and rope, which then is Llama's
    default with base 10,000.

    Args:
        allow_pickle: read pytorch_model.bin if there is no model.safetensors; tensors only.

    Raises:
        InputError: there is no draft, it is a pickle and that is not allowed, it is damaged, or it
            belongs to another verifier.
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
    except Exception as error:  # transformers' checks of a field raise many types of errors
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{folder / 'config.json'}: not a Llama config: {reason}") from None
    check_fit(config, verifier, str(folder))
    return draft_from_weights(config, weights, folder)


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
    # an older transformers stored these buffers with the weights; they follow from the config
    return {name: tensor for name, tensor in weights.items() if not name.endswith("inv_freq")}


def fetch_draft(source: str, revision: str | None, pickled: bool, folder: Path) -> Path:
    """The folder of a published draft: of path:FOLDER itself; hub:OWNER/NAME is put into `folder`.

    Args:
        revision: the commit on the hub; a local folder needs none.
        pickled: whether to fetch pytorch_model.bin as well.

    Raises:
        InputError: there is no such folder or repository, or the hub cannot be reached.
    """
    kind, _, name = source.partition(":")
    if kind == "hub":
        patterns = ["config.json", "model.safetensors"] + ["pytorch_model.bin"] * pickled
        snapshot(name, revision, folder, patterns, source)
        return folder
    if not Path(name).is_dir():
        raise InputError(f"{source}: there is no such folder; give path:FOLDER or hub:OWNER/NAME")
    return Path(name)
