"""The documents that a run trains on and those that it is validated on."""

from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from eagle.checksums import identity
from eagle.config import TrainConfig
from eagle.errors import InputError
from eagle.tokens.token_set import TokenSet, read_manifest
from eagle.tokens.tokenizer import (
    chat_template_hash,
    load_tokenizer,
    stop_token_ids,
    tokenizer_hash,
)
from eagle.training.distributed import rank_and_world
from eagle.verifier.admission import admit
from eagle.verifier.configuration import context_of


class Documents(NamedTuple):
    """Token sets and their origin."""

    train: TokenSet
    validation: TokenSet
    sha256: str
    """Hash of the tokens, and with the stage's folder of its other files."""


def load_documents(config: TrainConfig) -> Documents:
    """Read the token sets that the stage tokenize_dataset wrote, or tokenize a JSON-lines file.

    No document is longer than `maximum_model_length` or the verifier's context.

    Args:
        config: `dataset_path` is the stage's folder or the file.

    Raises:
        InputError: no such data, made for another verifier, or nothing in it to learn from.
    """
    path, context = config.dataset_path, context_of(admit(config.verifier_model_path).config)
    length = min(config.maximum_model_length, context)
    tokenizer = load_tokenizer(config.verifier_model_path)
    if path.is_dir():
        _check_verifier(config, tokenizer)
        sets = [TokenSet.load(path / f"{name}.safetensors") for name in ("train", "validation")]
        _report_context(config, context)
        return Documents(*(tokens.limited(length) for tokens in sets), identity(path))
    # here, because the stage `train` always reads a folder and must not depend on this code
    from eagle.tokens.json_lines import tokenize_json_lines

    stop = stop_token_ids(config.verifier_model_path)
    tokenized = tokenize_json_lines(
        path, tokenizer, stop, length, config.template_date, config.progress_seconds
    )
    _report_context(config, context)
    if tokenized.note and rank_and_world()[0] == 0:
        print(f"train: {path}: {tokenized.note}", flush=True)
    return Documents(tokenized.train, tokenized.validation, tokenized.sha256)


def check_vocabulary(config: TrainConfig, tokens: TokenSet, vocabulary_size: int) -> None:
    """Raises: InputError: a token is not in the verifier's vocabulary."""
    largest = int(tokens.token_ids.max())
    if largest >= vocabulary_size:
        raise InputError(
            f"{config.dataset_path}: has token {largest}, the verifier's vocabulary ends at "
            f"{vocabulary_size - 1}; the data was made for another model"
        )


def _check_verifier(config: TrainConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    manifest = read_manifest(config.dataset_path)
    for what, key, expected in (
        ("tokenizer", "tokenizer_sha256", tokenizer_hash(config.verifier_model_path)),
        ("chat template", "verifiers_template_sha256", chat_template_hash(tokenizer)),
    ):
        found = manifest[key]
        if found != expected:
            raise InputError(
                f"{config.dataset_path}: was made with another {what} ({found[:12]}) than the "
                f"verifier's ({expected[:12]} in {config.verifier_model_path}): run "
                "tokenize_dataset again"
            )


def _report_context(config: TrainConfig, context: int) -> None:
    if context < config.maximum_model_length and rank_and_world()[0] == 0:
        print(
            f"train: documents are cut at {context:,} tokens, the verifier's context, which is "
            f"below --maximum-model-length = {config.maximum_model_length:,}",
            flush=True,
        )
