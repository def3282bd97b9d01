"""How many tokens the conversations of params.yaml are, from a sample of their rows."""

from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from eagle.config import Params
from eagle.errors import InputError
from eagle.sharegpt.conversations import regularize
from eagle.sharegpt.rows import batches_of_rows
from eagle.sharegpt.sources import Source, sources_of
from eagle.sharegpt.turns import Rejected, turns_of
from eagle.system_prompts import system_turn
from eagle.tracking import Progress
from tools.model_shape import Shape

SAMPLED_FILES = 8
"""Of a source of many files; the first megabytes of each are read."""
SAMPLED_CHARACTERS = 1_000_000
"""Of conversations that are tokenized."""
CHARACTERS_A_TOKEN = 4.2
"""Where the tokenizer is not at hand: English text in the vocabularies of today."""
TURN_TOKENS = 6
"""What a template writes around a turn."""
SHAREGPT_CONVERSATIONS, SHAREGPT_TOKENS, SHAREGPT_TAUGHT = 68_000, 1_100, 640
"""Of a conversation of ShareGPT, cut at 2,048 tokens: what is taken for data that are not here."""


@dataclass(frozen=True)
class Tokens:
    """The documents that a run trains on and validates with."""

    train_documents: int
    train: int
    """Tokens."""
    taught: int
    """The assistant's among them."""
    validation_documents: int
    validation: int
    validation_taught: int
    lengths: list[int]
    """Of the sampled documents, cut at the longest length, ascending."""
    megabytes: float
    """Of the source's files."""
    rejected: Counter[str]
    """Of the sampled rows, by reason."""
    sampled: int
    """Rows."""
    how: str
    """In words."""


def estimate(params: Params, shape: Shape | None, conversations: int | None) -> Tokens:
    """The tokens of params.yaml's conversations, or of another number of such conversations.

    Raises:
        InputError: the source is absent or damaged.
    """
    longest = params.tokens.maximum_model_length
    if shape is not None:
        longest = min(longest, shape.context)
    parts = [
        _part(params, source, shape, longest)
        for source in sources_of(params.sharegpt.source, params.sharegpt.revision)
    ]
    count = sum(part.conversations for part in parts)
    if params.sharegpt.n is None:
        chosen = max(1, round(count * params.sharegpt.frac))
    else:
        chosen = min(count, params.sharegpt.n)
    chosen = conversations or chosen
    mean, taught = (
        sum(part.conversations * sum(sizes) / len(sizes) for part, sizes in pairs) / count
        for pairs in (
            [(part, part.lengths) for part in parts],
            [(part, part.taught) for part in parts],
        )
    )
    validation = max(1, round(chosen * params.sharegpt.validation_fraction))
    train = max(1, chosen - validation)
    return Tokens(
        train, round(train * mean), round(train * taught),
        validation, round(validation * mean), round(validation * taught),
        sorted(length for part in parts for length in part.lengths),
        sum(part.megabytes for part in parts) * max(1, chosen / count),
        sum((part.rejected for part in parts), Counter()),
        sum(part.rows for part in parts),
        "; ".join(part.how for part in parts),
    )  # fmt: skip


class _Part(NamedTuple):
    """What is known of one source."""

    conversations: int
    """Usable ones, those that its weight takes."""
    lengths: list[int]
    taught: list[int]
    megabytes: float
    rejected: Counter[str]
    rows: int
    how: str


def _part(params: Params, source: Source, shape: Shape | None, longest: int) -> _Part:
    if source.on_hub:
        count = round(SHAREGPT_CONVERSATIONS * source.weight)
        return _Part(
            count, [min(SHAREGPT_TOKENS, longest)], [min(SHAREGPT_TAUGHT, longest)],
            0.007 * count, Counter(), 0,
            f"assumed: {count:,} conversations of ShareGPT's mean length, as the data are not here",
        )  # fmt: skip
    files = source.files()
    size = sum(file.stat().st_size for file in files)
    usable, rejected, read = _sample(params, files)
    if not usable:
        raise InputError(f"{source.name}: no usable conversation in the first {read / 1e6:,.0f} MB")
    lengths, taught, how = _lengths(usable, shape, longest)
    whole = f" in the first {read / 1e6:,.0f} of {size / 1e6:,.0f} MB" if read < size else ""
    return _Part(
        max(1, round(len(usable) * size / read * source.weight)), lengths, taught, size / 1e6,
        rejected, len(usable) + rejected.total(), f"{how} of {len(lengths):,} conversations{whole}",
    )  # fmt: skip


def _sample(params: Params, files: list[Path]) -> tuple[list[list[dict]], Counter[str], int]:
    """Messages of the usable rows at the beginning of the files, the others' reasons, and the
    bytes that they take."""
    usable, rejected, read = [], Counter(), 0
    opening = system_turn(params.sharegpt.system_prompt)
    step = max(1, len(files) // SAMPLED_FILES)
    for file in files[::step][:SAMPLED_FILES]:
        with Progress("sample", 1, "MB", seconds=1e9) as progress:
            for row in next(batches_of_rows(file, progress)):
                try:
                    turns = turns_of(row, params.sharegpt.roles).turns
                    messages, _changes = regularize(turns, params.sharegpt)
                    first = [] if messages[0]["role"] == "system" else opening
                    usable.append(first + messages)
                except Rejected as reason:
                    rejected[str(reason).split(":")[0]] += 1
            read += round(progress.done * 1e6)
    return usable, rejected, read


def _lengths(
    conversations: list[list[dict]], shape: Shape | None, longest: int
) -> tuple[list[int], list[int], str]:
    """Tokens of conversations, the assistant's among them, and how they were counted."""
    characters, chosen = 0, []
    step = max(1, len(conversations) // 4000)
    for messages in islice(conversations, 0, None, step):
        characters += sum(len(message["content"]) for message in messages)
        chosen.append(messages)
        if characters > SAMPLED_CHARACTERS:
            break
    file = shape.folder / "tokenizer.json" if shape and shape.folder else None
    if file is not None and file.is_file():
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(file))
        texts = [message["content"] for messages in chosen for message in messages]
        encoded = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        counts = iter([len(one) for one in encoded])
        how = "counted with the verifier's tokenizer, without its template,"
    else:
        texts = (message["content"] for messages in chosen for message in messages)
        counts = (round(len(text) / CHARACTERS_A_TOKEN) for text in texts)
        how = f"estimated at {CHARACTERS_A_TOKEN} characters a token"
    lengths, taught = [], []
    for messages in chosen:
        sizes = [next(counts) + TURN_TOKENS for _ in messages]
        said = sum(
            size - TURN_TOKENS + 1
            for size, message in zip(sizes, messages, strict=True)
            if message["role"] == "assistant"
        )
        whole = sum(sizes)
        lengths.append(min(whole, longest))
        taught.append(round(said * min(1, longest / whole)))
    return lengths, taught, how
