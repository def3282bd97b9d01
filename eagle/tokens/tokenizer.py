"""Load the verifier's tokenizer, and find the tokens that end a reply."""

import hashlib
import importlib
import json
import re
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from eagle.errors import InputError, one_line
from eagle.files import read_json, sha256_of_file, sha256_of_json

TIKTOKEN_LINE = re.compile(rb"[A-Za-z0-9+/]+=* \d+")
PROBE = "The cat sat on the mat, 17 times."
# What a tokenizer is made from where there is no tokenizer.json.
SLOW_FILES = (
    "tokenizer.model", "vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json",
    "tokenizer_config.json",
)  # fmt: skip


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer in a verifier's folder.

    A folder that has only tokenizer.model (Vicuna) needs a moment: transformers converts it.
    Truncation and padding are switched off: a training program may have saved them in the file, and
    they would change documents.

    Raises:
        InputError: the tokenizer cannot be loaded, or it is not one of the tokenizers library, the
            only one that gives the position of a token in the text.
    """
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if not names & {"tokenizer.json", "tokenizer.model", "vocab.json"}:
        raise InputError(
            f"{folder}: has neither tokenizer.json nor tokenizer.model; get the model in its form "
            "for transformers (tekken.json and *.tiktoken are not read)"
        )
    of_sentencepiece = None
    if "tokenizer.model" in names and "tokenizer.json" not in names:
        of_sentencepiece = _encoded_by_sentencepiece(folder / "tokenizer.model")
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # whatever the code of a tokenizer and its library raise
        config = folder / "tokenizer_config.json"
        if config.is_file() and "auto_map" in read_json(config):
            raise InputError(
                f"{config}: auto_map: the tokenizer is code of the model's own, which is not run; "
                "take a model whose tokenizer is one of transformers', with a tokenizer.json"
            ) from None
        raise InputError(
            f"{folder}: its tokenizer cannot be loaded: {type(error).__name__}: {one_line(error)}"
        ) from None
    if not tokenizer.is_fast:
        raise InputError(
            f"{folder}: {type(tokenizer).__name__} does not say where in the text a token stands; "
            "a tokenizer.json is needed (tokenizer.save_pretrained of a fast tokenizer writes it)"
        )
    token_ids = tokenizer(PROBE, add_special_tokens=False)["input_ids"]
    if of_sentencepiece not in (None, token_ids):
        raise InputError(
            f"{folder}: transformers makes a {type(tokenizer).__name__} of tokenizer.model, which "
            f"gives {PROBE!r} the tokens {token_ids} where sentencepiece gives {of_sentencepiece}; "
            "add the model's tokenizer_config.json, which names its tokenizer_class"
        )
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def tokenizer_hash(folder: Path) -> str:
    """SHA-256 of tokenizer.json in a verifier's folder, or of the files that take its place."""
    if (folder / "tokenizer.json").is_file():
        return sha256_of_file(folder / "tokenizer.json")
    files = [folder / name for name in SLOW_FILES if (folder / name).is_file()]
    return sha256_of_json({path.name: sha256_of_file(path) for path in files})


def chat_template_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of the chat template that comes with the verifier; of all of them if it has several.

    Token data is proven to be what the verifier's own template renders (eagle/template/proof.py),
    so it is valid for this hash only.
    """
    own = tokenizer.chat_template or ""
    text = own if isinstance(own, str) else json.dumps(own, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def stop_token_ids(folder: Path) -> list[int]:
    """The tokens that end a reply, from a verifier's folder.

    They are the eos_token_id of the generation config, or of the model config if it has none.

    Raises:
        InputError: neither file has an eos_token_id, or it is not a token id or a list of them.
    """
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        eos = read_json(path).get("eos_token_id") if path.is_file() else None
        if eos is None:
            continue
        token_ids = eos if isinstance(eos, list) else [eos]
        if not token_ids or not all(type(token_id) is int for token_id in token_ids):
            raise InputError(
                f"{path}: eos_token_id = {eos!r}: expected the id of the token that ends a reply, "
                "or a list of such ids"
            )
        return token_ids
    raise InputError(
        f"{folder}: neither generation_config.json nor config.json has an eos_token_id, so "
        "nothing tells where a reply ends; add it"
    )


def _encoded_by_sentencepiece(path: Path) -> list[int]:
    """The tokens that a tokenizer.model itself gives PROBE.

    Raises:
        InputError: it is of another kind or damaged, or a package that reads it is missing.
    """
    for package in ("sentencepiece", "google.protobuf"):
        try:
            importlib.import_module(package)
        except ImportError:
            raise InputError(
                f"{path}: the package {package.removeprefix('google.')}, which reads it, is not "
                "installed; install requirements.lock (`make repro` does it)"
            ) from None
    import sentencepiece  # only few models need it

    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(path)).encode(PROBE)
    except Exception as error:
        with path.open("rb") as file:
            is_tiktoken = TIKTOKEN_LINE.fullmatch(file.readline().rstrip())
        found = "a tiktoken file" if is_tiktoken else f"damaged ({one_line(error)})"
        raise InputError(
            f"{path}: {found}, expected a model of sentencepiece; get tokenizer.json, as the "
            "model's form for transformers has it, or get the file again"
        ) from None
