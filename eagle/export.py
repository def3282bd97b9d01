"""Drafts in the layouts of others, out and in; foreign names stay in this file.

What each engine wants was read from vLLM 0.32's and SGLang's `llama_eagle.py` and from
SafeAILab/EAGLE's `cnets1.py`. All take un-prefixed names, no `lm_head`, no `norm`, no
`input_layernorm`; they differ in `architectures`, in the embedding and in biases:

  official  "bias" says whether `fc` has one (default true), "qkv_bias" whether queries, keys and
            values have; needs the embedding
  vllm      drops a stored `fc.bias` without a word; "bias" gives one to attention and its output,
            "qkv_bias" to queries, keys and values alone; shares the verifier's embedding
  sglang    has an `fc.bias`, which must be stored; "bias" and "attention_bias" each give one to
            attention and its output, which must be stored then; shares the verifier's embedding

Published drafts in the official layout come in the other way: mostly as a pickle, with a bias.
"""

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, LlamaConfig

from eagle.checkpoint import draft_of, read_weights
from eagle.draft import Draft, check_fit, config_as_json
from eagle.errors import InputError
from eagle.files import read_json, write_json

ARCHITECTURES = {
    "official": "LlamaForCausalLM",
    "vllm": "LlamaForCausalLM",
    "sglang": "LlamaForCausalLMEagle",
}


def export(draft: Draft, verifier_folder: Path, layout: str, folder: Path) -> None:
    """Write config.json and model.safetensors of one layout into the existing `folder`.

    Weights take the precision of the verifier's checkpoint, in which engines serve it.

    Args:
        layout: official, vllm or sglang.

    Raises:
        InputError: the draft belongs to another verifier, the verifier has no embedding to go with
            it, or the layout cannot hold the draft's bias.
    """
    verifier = AutoConfig.from_pretrained(verifier_folder)
    check_fit(draft.config, verifier, str(verifier_folder))
    embedding = _embedding(verifier_folder)
    weights = {name: tensor.to(embedding.dtype) for name, tensor in draft.state_dict().items()}
    bias = weights.get("fc.bias")
    if layout == "vllm":
        if bias is not None and bias.any():
            raise InputError(
                "the draft's fc.bias is not zero, and vLLM would drop it without a word; "
                "train with a draft config that has no bias, or serve with SGLang"
            )
        weights.pop("fc.bias", None)
    if layout == "sglang":
        zeros = torch.zeros(draft.config.hidden_size, dtype=embedding.dtype)
        weights.setdefault("fc.bias", zeros)
        if draft.config.qkv_bias:
            weights["layers.0.self_attn.o_proj.bias"] = zeros.clone()
    if layout == "official":
        weights["embed_tokens.weight"] = embedding
    config = config_as_json(draft.config)
    rope = dict(config["rope_parameters"])
    config |= {
        "architectures": [ARCHITECTURES[layout]],
        "model_type": "llama",
        "dtype": str(embedding.dtype).removeprefix("torch."),
        # both read the same positions
        "max_position_embeddings": verifier.max_position_embeddings,
        # engines on older transformers read these two in place of rope_parameters
        "rope_theta": rope.pop("rope_theta"),
        "rope_scaling": None if rope == {"rope_type": "default"} else rope,
        "bias": layout == "official" and bias is not None,
        "attention_bias": layout == "sglang" and draft.config.qkv_bias,
    }
    write_json(folder / "config.json", config)
    contiguous = {name: tensor.contiguous() for name, tensor in weights.items()}
    save_file(contiguous, folder / "model.safetensors", metadata={"format": "pt"})


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


def _embedding(verifier_folder: Path) -> Tensor:
    """The verifier's input embedding [V, H], read alone from its shards."""
    for shard in sorted(verifier_folder.glob("*.safetensors")):
        try:
            with safe_open(shard, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 (a safetensors file is no mapping)
                    if name.endswith("embed_tokens.weight"):
                        return file.get_tensor(name)
        except SafetensorError as error:
            raise InputError(f"{shard}: cannot be read: {error}; get the model again") from None
    raise InputError(f"{verifier_folder}: no weight named *.embed_tokens.weight in its files")
