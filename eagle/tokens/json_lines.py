"""Conversations in a JSON-lines file as token sets, for training without the workflow's stages."""

import hashlib
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from eagle.files import sha256_of_file
from eagle.sharegpt.conversations import read_conversations, split
from eagle.template.choice import choose_template
from eagle.tokens.token_set import TokenSet
from eagle.tokens.tokenization import tokenize
from eagle.tracking import Progress

VALIDATION_FRACTION = 0.05


def tokenize_json_lines(
    path: Path,
    tokenizer: PreTrainedTokenizerBase,
    stop_token_ids: list[int],
    maximum_length: int,
    progress_seconds: float,
) -> tuple[TokenSet, TokenSet, str]:
    """Tokenize a file of conversations with the verifier's own chat template.

    The stages do the same with the template of their choice and with files of any size; here all
    conversations are in memory.

    Args:
        maximum_length: tokens at which a document is cut.

    Returns:
        The documents to train on, those held out for validation (VALIDATION_FRACTION of the
        conversations), and the SHA-256 of file and template together.

    Raises:
        InputError: the file has no conversations to learn from, or the verifier's template cannot
            be used.
    """
    template = choose_template(None, tokenizer, stop_token_ids).text
    sets = []
    for conversations in split(read_conversations(path), VALIDATION_FRACTION):
        with Progress(
            "tokenize", len(conversations), "conversations", progress_seconds
        ) as progress:
            sets.append(tokenize(conversations, tokenizer, template, maximum_length, progress)[0])
    train, validation = sets
    return train, validation, hashlib.sha256((sha256_of_file(path) + template).encode()).hexdigest()
