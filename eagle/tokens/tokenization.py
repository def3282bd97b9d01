"""Turn conversations into token ids and loss masks, with several threads and in little memory."""

import json
import os
import shutil
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase

from eagle.errors import InputError
from eagle.files import check_file, parse_json_line, whole_file
from eagle.parallel import map_in_threads
from eagle.sharegpt.conversations import messages_of
from eagle.sharegpt.turns import CUT_AT_LENGTH, FINISH
from eagle.template.template import Refused, Rendered, encode_many, render_many
from eagle.tokens.token_set import TokenSet
from eagle.tracking import Progress

COUNTS = (
    "documents",
    "tokens",
    "assistant_tokens",
    "cut_tokens",  # beyond the maximum length
    "cut_documents",  # of which tokens were cut
    "cut_replies",  # that were cut as a whole
    "shortened_replies",  # that were cut in part
    "unfinished_replies",  # that were cut when they were written; their end is not taught
    "documents_without_reply",  # left out, because no token of a reply remains
)
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # our own threads already use all cores
CONVERSATIONS_AT_ONCE = 64
BYTES_AT_ONCE = 2**20


@dataclass
class Part:
    """The documents of a batch of conversations, N tokens together."""

    token_ids: np.ndarray
    """int32 [N]."""
    loss_mask: np.ndarray
    """uint8 [N]: 1 for a token of the assistant, else 0."""
    lengths: list[int]
    """Tokens of each document."""
    assistant_tokens: list[int]
    """Tokens of the assistant in each document."""
    counts: dict[str, int]
    """By the names in COUNTS."""


def encode_part(
    rendered: list[Rendered], tokenizer: PreTrainedTokenizerBase, maximum_length: int
) -> Part:
    """Tokenize a batch of conversations and cut each at `maximum_length` tokens.

    A conversation without a token of the assistant within that length is left out.
    """
    ids, masks = [np.empty(0, np.int32)], [np.empty(0, np.uint8)]
    counts = dict.fromkeys(COUNTS, 0)
    for token_ids, mask in encode_many(tokenizer, rendered):
        if len(mask) > maximum_length:
            starts = np.diff(mask, prepend=np.uint8(0)) == 1
            counts["cut_tokens"] += len(mask) - maximum_length
            counts["cut_documents"] += 1
            counts["cut_replies"] += int(starts[maximum_length:].sum())
            counts["shortened_replies"] += int(mask[maximum_length] and not starts[maximum_length])
            mask = mask[:maximum_length]
        # the first token cannot be a target, so a reply must have another token
        if mask[1:].any():
            ids.append(token_ids[:maximum_length])
            masks.append(mask)
        else:
            counts["documents_without_reply"] += 1
    lengths = [len(mask) for mask in masks[1:]]
    assistant_tokens = [int(mask.sum()) for mask in masks[1:]]
    counts["documents"] = len(lengths)
    counts["unfinished_replies"] = sum(len(one.unfinished) for one in rendered)
    counts["tokens"], counts["assistant_tokens"] = sum(lengths), sum(assistant_tokens)
    return Part(np.concatenate(ids), np.concatenate(masks), lengths, assistant_tokens, counts)


def tokenize(
    conversations: list[dict],
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    maximum_length: int,
    progress: Progress,
) -> tuple[TokenSet, dict]:
    """Tokenize conversations in memory.

    Args:
        progress: advanced by one for each conversation.

    Returns:
        The documents, and the counts by the names in COUNTS.

    Raises:
        InputError: the template refuses a conversation, or no document has a token of the
            assistant.
    """
    parts, counts = [], Counter()
    for start in range(0, len(conversations), CONVERSATIONS_AT_ONCE):
        messages = [row["messages"] for row in conversations[start : start + CONVERSATIONS_AT_ONCE]]
        rendered = _render(tokenizer, template, messages)
        parts.append(encode_part(rendered, tokenizer, maximum_length))
        counts.update(parts[-1].counts)
        progress.advance(len(messages))
    _check_not_empty(counts, maximum_length)
    lengths = [length for part in parts for length in part.lengths]
    tokens = TokenSet(
        torch.from_numpy(np.concatenate([part.token_ids for part in parts])),
        torch.from_numpy(np.concatenate([part.loss_mask for part in parts])),
        torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int64),
    )
    return tokens, dict(counts)


def _render(
    tokenizer: PreTrainedTokenizerBase, template: str, conversations: list[list[dict]]
) -> list[Rendered]:
    """`render_many`, with the replies that were cut at a limit of length."""
    return [
        rendered._replace(unfinished=_unfinished(messages))
        for rendered, messages in zip(
            render_many(tokenizer, template, conversations), conversations, strict=True
        )
    ]


def _unfinished(messages: list[dict]) -> frozenset[int]:
    replies = (message for message in messages if message["role"] == "assistant")
    return frozenset(
        number for number, reply in enumerate(replies) if reply.get(FINISH) == CUT_AT_LENGTH
    )


class TokenizeLines:
    """Turns a batch of JSON lines into a `Part`, in two steps."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, template: str, maximum_length: int, path: Path
    ):
        self.tokenizer, self.template = tokenizer, template
        self.maximum_length, self.path = maximum_length, path

    def render(self, lines: list[tuple[int, bytes]]) -> list[Rendered]:
        """Step one: parse and render. On the main thread, where rendering has a bound of time.

        Args:
            lines: the number of each line in the file, and its bytes.

        Raises:
            InputError: a line is not a conversation, or the template cannot render it.
        """
        conversations = {}
        for number, line in lines:
            where = f"{self.path}, line {number}"
            conversations[where] = messages_of(parse_json_line(line, where), where)
        try:
            return _render(self.tokenizer, self.template, [*conversations.values()])
        except Refused:
            for where, messages in conversations.items():
                try:
                    render_many(self.tokenizer, self.template, [messages])
                except Refused as refusal:
                    raise InputError(
                        f"{where}: {refusal}; leave such conversations out (system turns: "
                        "sharegpt.system_turns)"
                    ) from None
            raise

    def encode(self, rendered: list[Rendered]) -> Part:
        """Step two: tokenize. On any thread."""
        return encode_part(rendered, self.tokenizer, self.maximum_length)


def tokenize_file(
    path: Path,
    target: Path,
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    maximum_length: int,
    threads: int,
    progress_seconds: float,
) -> tuple[dict, dict]:
    """Tokenize a file of conversations into a file that `TokenSet.load` reads, in little memory.

    The bytes are those that `tokenize` and `TokenSet.save` write, for any number of threads.

    Args:
        path: JSON lines of conversations.
        target: the file to write.
        maximum_length: tokens at which a conversation is cut.
        progress_seconds: seconds between progress lines.

    Returns:
        The counts by the names in COUNTS, and statistics: the distributions of the documents'
        lengths and of the assistant's share in them, with histograms.

    Raises:
        InputError: the file cannot be read, a line is not a conversation, or no document has a
            token of the assistant.
    """
    size = check_file(path)
    lengths, assistant_tokens, counts = array("q"), array("q"), Counter()
    with (
        Progress(f"tokenize {path.stem}", size / 1e6, "MB", progress_seconds) as progress,
        tempfile.TemporaryFile(dir=target.parent) as ids,
        tempfile.TemporaryFile(dir=target.parent) as masks,
    ):
        lines = TokenizeLines(tokenizer, template, maximum_length, path)
        rendered = map(lines.render, _batches_of_lines(path, progress))
        parts = map_in_threads(lines.encode, rendered, threads)
        for part in parts:
            ids.write(part.token_ids.astype("<i4").tobytes())
            masks.write(part.loss_mask.tobytes())
            lengths.extend(part.lengths)
            assistant_tokens.extend(part.assistant_tokens)
            counts.update(part.counts)
        _check_not_empty(counts, maximum_length)
        _write_tensors(target, np.cumsum([0, *lengths], dtype="<i8"), ids, masks)
    shares = np.asarray(assistant_tokens) / np.asarray(lengths)
    return dict(counts), _statistics(np.asarray(lengths), shares, maximum_length)


def _batches_of_lines(path: Path, progress: Progress) -> Iterator[list[tuple[int, bytes]]]:
    """Yield (number, line) of the lines that are not blank, about BYTES_AT_ONCE at a time."""
    batch: list[tuple[int, bytes]] = []
    size = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            size += len(line)
            if line.strip():
                batch.append((number, line))
            if size >= BYTES_AT_ONCE:
                progress.advance(size / 1e6)
                yield batch
                batch, size = [], 0
    progress.advance(size / 1e6)
    yield batch


def _write_tensors(target: Path, bounds: np.ndarray, ids: BinaryIO, masks: BinaryIO) -> None:
    """Write the safetensors file of a token set whose ids and masks are in temporary files.

    Format: https://huggingface.co/docs/safetensors. The order is that of `save_file`: the widest
    numbers first, so that every tensor is aligned.
    """
    header, offset = {}, 0
    tokens = int(bounds[-1])
    for name, dtype, width, count in (
        ("bounds", "I64", 8, len(bounds)), ("token_ids", "I32", 4, tokens),
        ("loss_mask", "U8", 1, tokens),
    ):  # fmt: skip
        end = offset + width * count
        header[name] = {"dtype": dtype, "shape": [count], "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with whole_file(target) as partial_file, partial_file.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text + bounds.tobytes())
        for tensor in (ids, masks):
            tensor.seek(0)
            shutil.copyfileobj(tensor, file, 2**20)


def _statistics(lengths: np.ndarray, shares: np.ndarray, maximum_length: int) -> dict:
    """The distributions of the documents' lengths and of the assistant's share in them."""
    table = pd.DataFrame({"length": lengths, "masked_share": shares})
    width = max(1, -(-maximum_length // 16))
    edges = {
        "length": np.arange(0, maximum_length + width, width),
        "masked_share": np.linspace(0, 1, 11).round(1),
    }
    distributions = {}
    for name, column in table.items():
        summary = column.describe(percentiles=[0.1, 0.5, 0.9])
        histogram, _ = np.histogram(column, edges[name])
        distributions[name] = {
            key: round(float(summary[key]), 4)
            for key in ("mean", "min", "10%", "50%", "90%", "max")
        } | {
            "histogram": [
                {"from": low, "to": high, "documents": count}
                for low, high, count in zip(
                    edges[name][:-1].tolist(), edges[name][1:].tolist(), histogram.tolist(),
                    strict=True,
                )
            ]
        }  # fmt: skip
    return distributions


def named_cuts(counts: Mapping[str, int], maximum_length: int) -> str:
    """A note on what was cut and left out, for the line that ends a command; may be empty."""
    notes = []
    if cut := counts["cut_documents"]:
        notes.append(f"{cut:,} documents cut at {maximum_length:,} tokens")
    if unfinished := counts["unfinished_replies"]:
        notes.append(f"{unfinished:,} replies that were cut at a limit do not teach an end")
    if left_out := counts["documents_without_reply"]:
        notes.append(f"{left_out:,} left out, without a reply in {maximum_length:,} tokens")
    return ", ".join(notes)


def _check_not_empty(counts: dict[str, int], maximum_length: int) -> None:
    if counts.get("documents"):
        return
    cut = counts.get("cut_documents", 0)
    raise InputError(
        f"none of {counts.get('documents_without_reply', 0)} conversations has an assistant "
        f"token within {maximum_length} tokens: nothing to learn from. "
        + (f"{cut} are longer: take data with shorter prompts, or a greater maximum_model_length "
           "if the verifier's context allows it" if cut else
           "Check that the data holds replies, and that the template marks them with "
           "{% generation %}")
    )  # fmt: skip
