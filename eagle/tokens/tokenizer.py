"""The verifier's tokenizer, and the tokens that end its replies."""

from pathlib import Path

from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerBase,
)

from eagle.errors import InputError
from eagle.files import read_json, sha256_of_file


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The verifier's tokenizer, without the truncation and padding that a trainer may have left in
    its file: they would cut or fill documents.

    Raises:
        InputError: the folder holds none that can be loaded, or one that is not of the tokenizers
            library, which alone says where in the text a token stands.
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
    """SHA-256 of a verifier's tokenizer file."""
    names = ("tokenizer.json", "tokenizer.model")
    return sha256_of_file(next(folder / name for name in names if (folder / name).is_file()))


def stop_token_ids(folder: Path) -> list[int]:
    """Tokens that end a reply: the generation config's, else the model config's.

    Raises:
        InputError: neither names one.
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
