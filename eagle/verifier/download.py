"""Get a verifier from an installed package, a local folder or the hub."""

import functools
import os
import shutil
import sys
from pathlib import Path

from eagle.errors import InputError
from eagle.files import check_file, entries, hashes_of, write_json
from eagle.hub import snapshot
from eagle.template.stop_tokens import check_stop_tokens
from eagle.template.template import own_template
from eagle.tokens.tokenizer import load_tokenizer, stop_token_ids
from eagle.verifier.admission import admit, admit_config
from eagle.verifier.model_card import CARD, ModelCard, read_model_card
from eagle.verifier.package import package_folder

# Weights in a format that cannot run code, configuration and tokenizer; no code.
WEIGHTS = ["*.safetensors"]
SMALL_FILES = ["*.json", "*.jinja", "tokenizer.model", "LICENSE*", "NOTICE*", CARD]
MODEL_FILES = WEIGHTS + SMALL_FILES


def fetch_verifier(source: str, revision: str | None, folder: Path) -> dict:
    """Put a verifier in transformers layout into `folder`, with a manifest.

    Args:
        source: package:NAME, path:FOLDER or hub:OWNER/NAME.
        revision: the package's version, or the hub commit; unused for a local folder.
        folder: an existing, empty folder.

    Returns:
        The manifest, as written to manifest.json: source, revision, the SHA-256 of every file, and
        what the model's own card says (`ModelCard`).

    Raises:
        InputError: the source is absent, gated, unreachable, of another version, or not a model.
    """
    kind, _, name = source.partition(":")
    fetch = {"package": _from_package, "path": _from_path, "hub": _from_hub}[kind]
    card = fetch(name, revision, folder)
    (folder / CARD).unlink(missing_ok=True)  # a text for people must not change the model's hash
    _check_layout(folder, source)
    admit(folder, where=source)
    _check_replies(folder)
    manifest = {
        "source": source,
        "revision": revision,
        **card._asdict(),
        "files": hashes_of(folder),
    }
    write_json(folder / "manifest.json", manifest)
    return manifest


def _from_path(name: str, _revision: str | None, folder: Path) -> ModelCard:
    origin = Path(name)
    if not origin.is_dir():
        raise InputError(
            f"verifier.source = path:{name}: there is no such folder; give the folder of a model "
            "in transformers layout (config.json, *.safetensors, tokenizer files)"
        )
    _check_layout(origin, f"path:{name}")
    admit(origin)  # before gigabytes are copied
    _check_replies(origin)
    for pattern in MODEL_FILES:
        for path in entries(origin, pattern):
            shutil.copyfile(path, folder / path.name)
    return read_model_card(folder)


def _from_hub(name: str, revision: str | None, folder: Path) -> ModelCard:
    asked_by = f"verifier.source = hub:{name}"
    snapshot(name, revision, folder, SMALL_FILES, asked_by)
    if (folder / "config.json").is_file():
        admit_config(folder, asked_by)  # before gigabytes are downloaded
        _check_replies(folder)
    snapshot(name, revision, folder, WEIGHTS, asked_by)
    return read_model_card(folder)


def _from_package(name: str, revision: str | None, folder: Path) -> ModelCard:
    weights = sorted(package_folder(name, revision).rglob("*.gguf"))
    if len(weights) != 1:
        raise InputError(
            f"verifier.source = package:{name}: expected one GGUF file in the package, "
            f"found {len(weights)}; only packages that carry one GGUF model can be a verifier"
        )
    return _dequantize_gguf(weights[0], folder)


def _dequantize_gguf(weights: Path, folder: Path) -> ModelCard:
    """Write a GGUF model as bfloat16 safetensors. Returns what the file says of the model.

    The 4-bit blocks are converted to bfloat16 once, here. So every later precision starts from the
    same numbers, and runs in bfloat16 use exactly these.
    """
    if not sys.stderr.isatty():  # fewer lines from transformers' own progress bar
        os.environ.setdefault("TQDM_MININTERVAL", "10")
    import gguf
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # without a cache, transformers reads the whole file three times: config, weights, tokenizer
    gguf.GGUFReader = functools.cache(gguf.GGUFReader)
    location = {"pretrained_model_name_or_path": str(weights.parent), "gguf_file": weights.name}
    quantized = AutoModelForCausalLM.from_pretrained(**location, dtype=torch.float32)
    config = quantized.config
    del config.quantization_config  # transformers refuses to save a model that still has one
    config.architectures = [type(quantized).__name__]
    with torch.device("meta"):  # without memory: the next lines set all weights
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(quantized.bfloat16().state_dict(), assign=True)
    model.tie_weights()
    model.generation_config = quantized.generation_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**location).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    license = gguf.GGUFReader(weights).fields.get("general.license")
    # people know it by the file's name; general.name is often that of a folder in training
    return ModelCard(weights.stem, license and license.contents())


def _check_replies(folder: Path) -> None:
    """Check that the tokenizer can be read, and that replies end where serving stops.

    Raises:
        InputError: one of them is not so, as far as the model's own files tell.
    """
    tokenizer, stop = load_tokenizer(folder), stop_token_ids(folder)
    template = own_template(tokenizer)
    if template is not None:
        check_stop_tokens(tokenizer, template, stop)


def _check_layout(folder: Path, source: str) -> None:
    """Check that a folder has configuration, weights in a safe format, and a tokenizer.

    Raises:
        InputError: something is missing, or is a pipe, a device or a link to nothing.
    """
    names = {path.name for path in folder.iterdir()}
    for name in sorted(names):
        if not (folder / name).is_dir():
            check_file(folder / name)
    needed = {
        "config.json": "config.json" in names,
        "weights (*.safetensors)": any(name.endswith(".safetensors") for name in names),
        "a tokenizer (tokenizer.json or tokenizer.model)": bool(
            names & {"tokenizer.json", "tokenizer.model"}
        ),
    }
    missing = [what for what, present in needed.items() if not present]
    if missing:
        raise InputError(
            f"verifier.source = {source}: not a model in transformers layout: "
            f"{', '.join(missing)} missing; found {', '.join(sorted(names)[:10]) or 'no files'}. "
            "Pickled weights (*.bin), which can run code, are not taken: choose a commit that has "
            "safetensors, or convert them and give path:FOLDER"
        )
