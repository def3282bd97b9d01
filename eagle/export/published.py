"""Published drafts in the official layout; most of them are a pickle and have a bias."""

import pickle
import sys
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlamaConfig, PretrainedConfig

from eagle.draft.checkpoint import draft_from_weights, read_weights
from eagle.draft.draft import ROPE_FIELDS, Draft, check_fit, draft_rope, llama_config
from eagle.errors import InputError
from eagle.files import read_json
from eagle.hub import snapshot
from eagle.verifier.admission import admit
from eagle.verifier.configuration import CHANGING_ROPE, full_attention_rope


def read_published(folder: Path, verifier_folder: Path, allow_pickle: bool) -> Draft:
    """Read a draft in the official layout, as SafeAILab/EAGLE and others publish them.

    Their config.json mostly leaves out "bias" and "qkv_bias", which then follow from the weights
    (drafts for Qwen2 have biases of queries, keys and values), and rope, which then is Llama's
    default with base 10,000. A rope that is not the verifier's is kept, since the draft was trained
    with it; one line says so.

    Args:
        allow_pickle: read pytorch_model.bin if there is no model.safetensors; tensors only.

    Raises:
        InputError: there is no draft, it is of another kind than EAGLE-1's, it is a pickle and that
            is not allowed, it is damaged, or it belongs to another verifier.
    """
    verifier = admit(verifier_folder).config
    fields = read_json(folder / "config.json")
    if not isinstance(fields, dict):
        raise InputError(f"{folder / 'config.json'}: expected a model's settings, found a list")
    # null is the same as absent
    fields = {"architectures": []} | {k: v for k, v in fields.items() if v is not None}
    _check_kind(folder, _kind_by_config(fields))
    weights = _published_weights(folder, allow_pickle)
    _check_kind(folder, _kind_by_weights(weights))
    defaults = {
        "bias": "fc.bias" in weights,
        "qkv_bias": "layers.0.self_attn.q_proj.bias" in weights,
        "vocab_size": verifier.vocab_size,
    }
    context = {"max_position_embeddings": verifier.max_position_embeddings}
    config = llama_config(defaults | fields | context, str(folder / "config.json"))
    check_fit(config, verifier, str(folder))
    _check_rope(config, verifier, folder)
    return draft_from_weights(config, weights, folder)


def _check_kind(folder: Path, found: str | None) -> None:
    if found:
        raise InputError(
            f"{folder}: found {found}, expected an EAGLE-1 draft (EAGLE-2's have the same form): "
            "fc [H, 2H] and one Llama layer, layers.0.*, without norm and head of its own"
        )


def _kind_by_config(fields: dict) -> str | None:
    """Another kind of draft than EAGLE-1's, by its config; None: none of those known."""
    names = [str(name).lower() for name in [fields.get("model_type"), *fields["architectures"]]]
    layers = fields.get("num_hidden_layers")
    if {"speculators_model_type", "speculators_config"} & fields.keys():
        kind = fields.get("speculators_model_type", "of an unnamed type")
        return f"a draft in the format of the library speculators ({kind})"
    if "draft_vocab_size" in fields or any("eagle3" in name for name in names):
        return "an EAGLE-3 draft"
    if any("medusa" in name for name in [*fields, *names]):
        return "Medusa heads"
    if isinstance(layers, int) and layers > 1:
        return f"a language model of {layers} layers"
    return None


def _kind_by_weights(weights: dict[str, Tensor]) -> str | None:
    """The same by its weights."""
    joined = weights.get("fc.weight")
    markers = ("d2t", "t2d", "midlayer.", "hidden_norm")
    marked = [name for name in weights if any(marker in name for marker in markers)]
    if joined is not None and joined.shape[1] == 3 * joined.shape[0]:
        marked.append("fc [H, 3H]")
    if marked:
        return f"an EAGLE-3 draft ({marked[-1]})"
    if any("medusa" in name or name.split(".")[0].isdecimal() for name in weights):
        return "Medusa heads"
    if joined is None:
        return f"another model ({min(weights, default='no tensors')}, and no fc.weight)"
    if "lm_head.weight" in weights:
        return "a draft with a head of its own (lm_head.weight)"
    return None


def _check_rope(config: LlamaConfig, verifier: PretrainedConfig, folder: Path) -> None:
    """Refuse a rope that a draft does not have; print one line on one that is not the verifier's.

    Raises:
        InputError: parts of heads are rotated, or the type is unknown.
    """
    own, theirs = config.rope_parameters, full_attention_rope(verifier)
    kind = own.get("rope_type")
    if kind not in (*ROPE_FIELDS, *CHANGING_ROPE) or own.get("partial_rotary_factor", 1) != 1:
        raise InputError(
            f"{folder / 'config.json'}: the draft's rope is {own}; expected one that rotates whole "
            f"heads, of the types {', '.join((*ROPE_FIELDS, *CHANGING_ROPE))}"
        )
    if own not in (theirs, draft_rope(verifier)):
        print(
            f"{folder}: warning: the draft's rope is {own}, the verifier's is {theirs}; the draft "
            "is measured with its own, with which it was trained",
            file=sys.stderr,
        )


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
