"""Conversations become token ids and loss masks, in several threads and in little memory."""

import json
import os
import shutil
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator
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
from eagle.template.template import Refused, Rendered, encode_many, render_many
from eagle.tokens.token_set import TokenSet
from eagle.tracking import Progress

# What tokenising counts. cut_tokens, cut_documents, cut_replies: beyond the maximum length, the
# replies wholly; shortened_replies: cut within; documents_without_reply: left out for it.
COUNTS = (
    "documents", "tokens", "assistant_tokens", "cut_tokens", "cut_documents", "cut_replies",
    "shortened_replies", "documents_without_reply",
)  # fmt: skip
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the threads share the cores already
CONVERSATIONS_AT_ONCE = 64
BYTES_AT_ONCE = 2**20


@dataclass
class Part:
    """Documents of some conversations, and what became of the others.

    token_ids: int32 [N]. loss_mask: uint8 [N]. lengths: tokens of each document. said: how many
    of them are the assistant's. counts: see COUNTS.
    """

    token_ids: np.ndarray
    loss_mask: np.ndarray
    lengths: list[int]
    said: list[int]
    counts: dict[str, int]


def encode_part(
    rendered: list[Rendered], tokenizer: PreTrainedTokenizerBase, maximum_length: int
) -> Part:
    """Token ids and loss masks of conversations; those without an assistant token within
    `maximum_length` are left out."""
    ids, masks = [np.empty(0, np.int32)], [np.empty(0, np.uint8)]
    counts = dict.fromkeys(COUNTS, 0)
    for token_ids, mask in encode_many(tokenizer, rendered):
        if len(mask) > maximum_length:
            begins = np.diff(mask, prepend=np.uint8(0)) == 1
            counts["cut_tokens"] += len(mask) - maximum_length
            counts["cut_documents"] += 1
            counts["cut_replies"] += int(begins[maximum_length:].sum())
            counts["shortened_replies"] += int(mask[maximum_length] and not begins[maximum_length])
            mask = mask[:maximum_length]
        # the first token cannot be a target, so a reply must reach beyond it
        if mask[1:].any():
            ids.append(token_ids[:maximum_length])
            masks.append(mask)
        else:
            counts["documents_without_reply"] += 1
    lengths, said = [len(mask) for mask in masks[1:]], [int(mask.sum()) for mask in masks[1:]]
    counts["documents"] = len(lengths)
    counts["tokens"], counts["assistant_tokens"] = sum(lengths), sum(said)
    return Part(np.concatenate(ids), np.concatenate(masks), lengths, said, counts)


def tokenize(
    conversations: list[dict],
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    maximum_length: int,
    progress: Progress,
) -> tuple[TokenSet, dict]:
    """Token ids and loss masks of conversations in memory.

    Args:
        progress: advanced by one for each conversation.

    Returns:
        The documents, and COUNTS.

    Raises:
        InputError: no conversation has an assistant token.
    """
    parts, counts = [], Counter()
    for start in range(0, len(conversations), CONVERSATIONS_AT_ONCE):
        messages = [row["messages"] for row in conversations[start : start + CONVERSATIONS_AT_ONCE]]
        rendered = render_many(tokenizer, template, messages)
        parts.append(encode_part(rendered, tokenizer, maximum_length))
        counts.update(parts[-1].counts)
        progress.advance(len(messages))
    _something_to_learn(counts, maximum_length)
    lengths = [length for part in parts for length in part.lengths]
    tokens = TokenSet(
        torch.from_numpy(np.concatenate([part.token_ids for part in parts])),
        torch.from_numpy(np.concatenate([part.loss_mask for part in parts])),
        torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int64),
    )
    return tokens, dict(counts)


class TokenizeLines:
    """Turns lines of conversations into a part, in two steps."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, template: str, maximum_length: int, path: Path
    ):
        self.tokenizer, self.template = tokenizer, template
        self.maximum_length, self.path = maximum_length, path

    def render(self, lines: list[tuple[int, bytes]]) -> list[Rendered]:
        """Runs on the main thread, where a template's time is bounded.

        Raises:
            InputError: a line is no conversation, or the template cannot render it.
        """
        conversations = {}
        for number, line in lines:
            where = f"{self.path}, line {number}"
            conversations[where] = messages_of(parse_json_line(line, where), where)
        try:
            return render_many(self.tokenizer, self.template, [*conversations.values()])
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
        """Runs on any thread."""
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
    """Write the token set of JSON lines of conversations, in little memory.

    The file is the one that `tokenize` and `TokenSet.save` would write, whatever the number of
    threads.

    Returns:
        COUNTS, and statistics: lengths and masked shares of the documents with their histograms.

    Raises:
        InputError: the file cannot be read, a line is no conversation, or none has an assistant
            token.
    """
    size = check_file(path)
    lengths, said, counts = array("q"), array("q"), Counter()
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
            said.extend(part.said)
            counts.update(part.counts)
        _something_to_learn(counts, maximum_length)
        _write_tensors(target, np.cumsum([0, *lengths], dtype="<i8"), ids, masks)
    return dict(counts), _statistics(np.asarray(lengths), np.asarray(said), maximum_length)


def _batches_of_lines(path: Path, progress: Progress) -> Iterator[list[tuple[int, bytes]]]:
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
    """The safetensors file of a token set whose long tensors are in files.

    Format: https://huggingface.co/docs/safetensors. Order as in `save_file`: the widest numbers
    first, so that each tensor is aligned.
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


def _statistics(lengths: np.ndarray, said: np.ndarray, maximum_length: int) -> dict:
    """Distributions over documents: of tokens, and of the assistant's share among them."""
    table = pd.DataFrame({"length": lengths, "masked_share": said / lengths})
    width = max(1, -(-maximum_length // 16))
    edges = {
        "length": np.arange(0, maximum_length + width, width),
        "masked_share": np.linspace(0, 1, 11).round(1),
    }
    found = {}
    for name, column in table.items():
        summary = column.describe(percentiles=[0.1, 0.5, 0.9])
        histogram, _ = np.histogram(column, edges[name])
        found[name] = {
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
    return found


def _something_to_learn(counts: dict[str, int], maximum_length: int) -> None:
    if not counts.get("documents"):
        raise InputError(
            f"none of {counts.get('documents_without_reply', 0)} conversations has an assistant "
            f"token within {maximum_length} tokens: nothing to learn from. Check that the data "
            "holds replies, and that the template marks them with {% generation %}"
        )
