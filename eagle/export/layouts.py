"""Exported drafts in the layouts that serving engines load.

The requirements come from vLLM 0.32's and SGLang's `llama_eagle.py` and from SafeAILab/EAGLE's
`cnets1.py`. All expect names without a prefix, no `lm_head`, no `norm` and no `input_layernorm`.
They differ in `architectures`, in the embedding and in biases:

  official  "bias" tells whether `fc` has a bias (default true), "qkv_bias" whether queries, keys
            and values have one; the embedding must be stored
  vllm      ignores a stored `fc.bias` without a message; "bias" gives a bias to queries, keys,
            values and attention's output, "qkv_bias" to queries, keys and values alone; uses the
            verifier's embedding
  sglang    always has an `fc.bias`, which must be stored; "bias" and "attention_bias" each give a
            bias to queries, keys, values and attention's output, which must be stored then; uses
            the verifier's embedding
"""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from eagle.draft.draft import Draft, check_fit, config_as_json
from eagle.errors import InputError
from eagle.files import read_json, write_json
from eagle.verifier.admission import Admitted, admit

ARCHITECTURES = {
    "official": "LlamaForCausalLM",
    "vllm": "LlamaForCausalLM",
    "sglang": "LlamaForCausalLMEagle",
}


def export(draft: Draft, verifier_folder: Path, layout: str, folder: Path) -> None:
    """Write config.json and model.safetensors of one layout into the existing `folder`.

    The weights are converted to the precision of the verifier's checkpoint, in which engines serve
    it.

    Args:
        layout: a name of ARCHITECTURES.

    Raises:
        InputError: the folder has no model that can be a verifier, the draft belongs to another
            one, the verifier's embedding cannot be read, or the layout cannot store the draft's
            bias.
    """
    verifier = admit(verifier_folder)
    check_fit(draft.config, verifier.config, str(verifier_folder))
    embedding = _embedding(verifier_folder, verifier)
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
        # draft and verifier have the same positions
        "max_position_embeddings": verifier.config.max_position_embeddings,
        # engines with an older transformers read these two instead of rope_parameters
        "rope_theta": rope.pop("rope_theta"),
        "rope_scaling": None if rope == {"rope_type": "default"} else rope,
        "bias": layout == "official" and bias is not None,
        "attention_bias": layout == "sglang" and draft.config.qkv_bias,
    }
    write_json(folder / "config.json", config)
    contiguous = {name: tensor.contiguous() for name, tensor in weights.items()}
    save_file(contiguous, folder / "model.safetensors", metadata={"format": "pt"})


def _embedding(folder: Path, verifier: Admitted) -> Tensor:
    """The verifier's input embedding [V, H], from the files that transformers reads."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        with _opened(single) as file:
            names = dict.fromkeys(file.keys(), single.name)
    else:
        names = read_json(index)["weight_map"]
    # conversions of names change the path to a parameter, never its own last two words
    own = ".".join(verifier.embedding.split(".")[-2:])
    shape = [verifier.config.vocab_size, verifier.config.hidden_size]
    found = []
    for name, file_name in names.items():
        if name == own or name.endswith(f".{own}"):
            with _opened(folder / file_name) as file:
                if file.get_slice(name).get_shape() == shape:
                    found.append(file.get_tensor(name))
    if len(found) != 1:
        raise InputError(
            f"{folder}: found {len(found)} tensors named {own} of shape {shape}, expected one, the "
            "input embedding; save the model anew (save_pretrained)"
        )
    return found[0]


def _opened(file: Path) -> safe_open:
    try:
        return safe_open(file, framework="pt")
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file}: cannot be read: {error}; get the model again") from None
