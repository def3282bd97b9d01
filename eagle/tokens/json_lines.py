"""Conversations in a JSON-lines file as token sets, for training without the workflow's stages."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from eagle.sharegpt.conversations import named_fields, split, usable_conversations
from eagle.template.choice import choose_template
from eagle.tokens.token_set import TokenSet
from eagle.tokens.tokenization import named_cuts, tokenize
from eagle.tracking import Progress

VALIDATION_FRACTION = 0.05


class TokenizedLines(NamedTuple):
    """The documents of a file."""

    train: TokenSet
    validation: TokenSet
    """Those held out: VALIDATION_FRACTION of the conversations."""
    sha256: str
    """Of all token ids, masks and bounds."""
    note: str
    """What was left out, cut or not read; empty if nothing was."""


def tokenize_json_lines(
    path: Path,
    tokenizer: PreTrainedTokenizerBase,
    stop_token_ids: list[int],
    maximum_length: int,
    date: str,
    progress_seconds: float,
) -> TokenizedLines:
    """Tokenize a file of conversations with the verifier's own chat template.

    The stages do the same with the template of their choice and with files of any size; here all
    conversations are in memory.

    Args:
        maximum_length: tokens at which a document is cut.
        date: the day that the template writes, if it writes one, as YYYY-MM-DD.

    Raises:
        InputError: the file has no conversations to learn from, or the verifier's template cannot
            be used.
    """
    template = choose_template(None, tokenizer, stop_token_ids, date).text
    rows, rejections, fields_not_read = usable_conversations(path)
    sets, counts = [], Counter()
    for conversations in split(rows, VALIDATION_FRACTION):
        with Progress(
            "tokenize", len(conversations), "conversations", progress_seconds
        ) as progress:
            tokens, cut = tokenize(conversations, tokenizer, template, maximum_length, progress)
        sets.append(tokens)
        counts.update(cut)
    notes = [named_cuts(counts, maximum_length), named_fields(fields_not_read)]
    if left_out := rejections.counts.total():
        notes.insert(0, f"{left_out:,} of {len(rows) + left_out:,} rows left out, {rejections}")
    digest = hashlib.sha256()
    for tokens in sets:
        for tensor in (tokens.token_ids, tokens.loss_mask, tokens.bounds):
            digest.update(tensor.numpy().data)
    train, validation = sets
    note = "; ".join(note for note in notes if note)
    return TokenizedLines(train, validation, digest.hexdigest(), note)
