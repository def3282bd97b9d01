"""Load the verifier's tokenizer, and find the tokens that end a reply."""

import hashlib
import json
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from eagle.errors import InputError
from eagle.files import read_json, sha256_of_file


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer in a verifier's folder.

    Truncation and padding are switched off: a training program may have saved them in the file, and
    they would change documents.

    Raises:
        InputError: the tokenizer cannot be loaded, or it is not one of the tokenizers library, the
            only one that gives the position of a token in the text.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: its tokenizer cannot be loaded: {error}") from None
    if not tokenizer.is_fast:
        raise InputError(
            f"{folder}: {type(tokenizer).__name__} does not say where in the text a token stands; "
            "a tokenizer.json is needed (tokenizer.save_pretrained of a fast tokenizer writes it)"
        )
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def tokenizer_hash(folder: Path) -> str:
    """SHA-256 of the tokenizer file in a verifier's folder."""
    names = ("tokenizer.json", "tokenizer.model")
    return sha256_of_file(next(folder / name for name in names if (folder / name).is_file()))


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
        InputError: neither file has an eos_token_id.
    """
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        eos = read_json(path).get("eos_token_id") if path.is_file() else None
        if eos is not None:
            return [eos] if isinstance(eos, int) else list(eos)
    raise InputError(
        f"{folder}: neither generation_config.json nor config.json has an eos_token_id, so "
        "nothing tells where a reply ends; add it"
    )
