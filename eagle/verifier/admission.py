"""What may be a verifier: decided from its config and its files' headers, before a weight is read.

Three things are looked at, each in milliseconds:

  the files        adapters, shards without their index, quantised weights
  the tensors      the checkpoint's names and shapes against those of the model that the config
                   describes, after transformers' own conversions
  the arithmetic   a forward pass of that model on torch's meta device, which has shapes and no
                   numbers: the head must read the features themselves, the logits must be what the
                   head gives, and every layer must put its keys and values into a cache once

So a family of models is admitted for what its code does, not for its name.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PretrainedConfig
from transformers.utils import logging as transformers_logging

from eagle.errors import InputError, and_more, one_line
from eagle.files import read_json
from eagle.verifier.arithmetic import KeyValueShape, follow
from eagle.verifier.configuration import full_attention_rope, load_config

SERVED_LAYERS = ("full_attention", "sliding_attention")
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")


class Admitted(NamedTuple):
    """What admission has learned of a verifier."""

    config: PretrainedConfig
    """Of the text model; where the checkpoint holds other models as well, without theirs."""
    attn: str
    """The attention implementation that it runs with."""
    key_value_shapes: list[KeyValueShape]
    """What each layer keeps of a token."""
    embedding: str
    """The name of the input embedding's parameter."""


def admit(folder: Path, attn: str = "sdpa", where: str | None = None) -> Admitted:
    """Hold a checkpoint in transformers layout against what a verifier must be.

    Args:
        attn: the attention implementation asked for; a model without SDPA runs with eager.
        where: what messages call it, if not by its folder.

    Raises:
        InputError: it cannot be one; the message names file, key, what was found and what to do.
    """
    where = where or str(folder)
    _check_files(folder, where)
    config = load_config(folder)
    _check_config(config, where)
    with _loading_errors(where, attn):
        # shapes only; transformers reads the headers and applies its conversions of names
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.bfloat16,
            attn_implementation=_attention_of(config, attn),
            device_map="meta",
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            local_files_only=True,
            trust_remote_code=False,
        )
    _check_tensors(report, where)
    attn = model.config._attn_implementation
    return Admitted(
        config=model.config.get_text_config(decoder=True),
        attn=attn,
        key_value_shapes=follow(model, where),
        embedding=next(
            name
            for name, parameter in model.named_parameters()
            if parameter is model.get_input_embeddings().weight
        ),
    )


def admit_config(folder: Path, where: str) -> None:
    """The same as far as config.json alone tells, before the weights are downloaded.

    Args:
        where: the source, for the message.
    """
    config = load_config(folder)
    _check_config(config, where)
    with _loading_errors(where, "sdpa"), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            config,
            dtype=torch.bfloat16,
            attn_implementation=_attention_of(config, "sdpa"),
            trust_remote_code=False,
        )
    follow(model, where)


def key_value_shapes(config: PretrainedConfig) -> list[KeyValueShape]:
    """What each layer of a model with this config keeps of a token.

    Raises:
        InputError: it cannot be a verifier.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    return follow(model, config.model_type)


def _check_files(folder: Path, where: str) -> None:
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if "config.json" not in names:
        adapters = sorted(names & set(ADAPTER_FILES))
        found = f"an adapter ({', '.join(adapters)})" if adapters else "no config.json"
        raise InputError(
            f"{where}: found {found}, expected a model in transformers layout"
            + ("; merge the adapter into its model (peft's merge_and_unload), save that, and give "
               "its folder" if adapters else "")
        )  # fmt: skip
    if adapters := sorted(names & set(ADAPTER_FILES)):
        raise InputError(
            f"{where}: {adapters[0]}: an adapter lies beside the model, and only one of the two "
            "can be meant; merge it into the model (peft's merge_and_unload) and save that, or "
            "remove the adapter's files"
        )
    weights = sorted(name for name in names if name.endswith(".safetensors"))
    indexed = any(name.endswith(".safetensors.index.json") for name in names)
    if weights and "model.safetensors" not in weights and not indexed:
        raise InputError(
            f"{where}: {len(weights)} files of weights ({weights[0]}, …) without "
            "model.safetensors.index.json, which says what stands in which; get the index, or "
            "save the model anew (save_pretrained)"
        )
    for name in names:
        if name.endswith(".safetensors.index.json"):
            absent = sorted(set(read_json(folder / name)["weight_map"].values()) - names)
            if absent:
                raise InputError(
                    f"{where}: {name} names {', '.join(absent[:3])}, which "
                    f"{'is' if len(absent) == 1 else 'are'} missing; get the whole model"
                )


def _check_config(config: PretrainedConfig, where: str) -> None:
    quantization = getattr(config, "quantization_config", None)
    if quantization is not None:
        kind = (
            quantization.get("quant_method", "an unnamed method")
            if isinstance(quantization, dict)
            else quantization.quant_method
        )
        raise InputError(
            f"{where}: config.json: quantization_config: the weights are quantised by "
            f"{getattr(kind, 'value', kind)}; a draft learns the features of the model as it was "
            "trained: give the checkpoint that was not quantised (or dequantise it and save that)"
        )
    if config.is_encoder_decoder:
        raise InputError(
            f"{where}: config.json: model_type {config.model_type}: an encoder-decoder; expected a "
            "decoder alone, a causal language model"
        )
    if type(config) not in AutoModelForCausalLM._model_mapping:
        raise InputError(
            f"{where}: config.json: model_type {config.model_type}: transformers has no causal "
            "language model of this type (a model of text alone, such as Llama, Qwen or Gemma, is "
            "expected; from a multimodal checkpoint, save its language model by itself)"
        )
    text = config.get_text_config(decoder=True)
    if others := sorted(set(getattr(text, "layer_types", None) or []) - set(SERVED_LAYERS)):
        raise InputError(
            f"{where}: config.json: model_type {config.model_type}: layer_types holds "
            f"{', '.join(others)}; decoding keeps the keys and values of every token, and serves "
            f"{' and '.join(SERVED_LAYERS)} alone: choose another verifier"
        )
    rope = full_attention_rope(text)
    alibi = getattr(text, "alibi", False)
    if alibi or rope is None or "rope_theta" not in rope:
        raise InputError(
            f"{where}: config.json: model_type {config.model_type}: no rotary embedding is stated "
            f"({'alibi is true' if alibi else 'rope_parameters with rope_theta'}); a draft "
            "continues models with one, such as Llama, Mistral, Qwen, Gemma or Phi-3"
        )
    for name in ("hidden_size", "num_hidden_layers", "vocab_size", "max_position_embeddings"):
        if getattr(text, name, None) is None:
            raise InputError(
                f"{where}: config.json: model_type {config.model_type}: {name} is missing; "
                "expected one stack of like layers over tokens, as in Llama, Mistral, Qwen, Gemma "
                "or Phi-3"
            )


def _attention_of(config: PretrainedConfig, asked: str) -> str:
    """What the model runs with: `asked`, or eager where the model's class has no SDPA."""
    model_class = AutoModelForCausalLM._model_mapping[type(config)]
    has_sdpa = getattr(model_class, "_supports_sdpa", False)
    return "eager" if asked == "sdpa" and not has_sdpa else asked


def _check_tensors(report: dict[str, Any], where: str) -> None:
    if mismatched := sorted(report["mismatched_keys"]):
        name, found, expected = mismatched[0]
        raise InputError(
            f"{where}: tensor {name} is {list(found)} in the files and {list(expected)} by "
            f"config.json{and_more(mismatched)}; correct config.json (vocab_size, where tokens "
            "were added) or get the model again"
        )
    if missing := sorted(report["missing_keys"]):
        raise InputError(
            f"{where}: tensor {missing[0]} is missing from the files{and_more(missing)}; it "
            "would be made of random numbers. Get the whole model, or, if its head is its "
            "embedding, set tie_word_embeddings in config.json"
        )
    if unexpected := sorted(report["unexpected_keys"]):
        raise InputError(
            f"{where}: tensor {unexpected[0]} belongs to no part of the model that config.json "
            f"describes{and_more(unexpected)}; it would be left out without a word. Correct "
            "config.json, merge an adapter, or save the language model by itself"
        )


@contextmanager
def _loading_errors(where: str, attn: str) -> Iterator[None]:
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # the report is judged here, not printed there
    try:
        yield
    except ImportError as error:  # flash_attention_2, or what a family's own code imports
        raise InputError(
            f"{where}: attn = {attn}: not installed here: {one_line(error)}"
            if attn not in ("sdpa", "eager")
            else f"{where}: needs a package that is not installed: {one_line(error)}"
        ) from None
    except (OSError, SafetensorError) as error:
        raise InputError(f"{where}: its weights cannot be read: {one_line(error)}") from None
    except Exception as error:  # a model's class raises whatever its code does
        raise InputError(f"{where}: cannot be made a model: {one_line(error)}") from None
    finally:
        transformers_logging.set_verbosity(level)
