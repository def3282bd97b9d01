"""Let the verifier write all replies: the training data that the paper finds best (Table 6)."""

import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, Self

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor
from transformers import DynamicCache, PreTrainedTokenizerBase

from eagle.config import Regenerate
from eagle.errors import InputError
from eagle.files import make_folder, naming, sync, whole_file
from eagle.replies.journal_line import content_of, journal_line
from eagle.sharegpt.turns import CUT_AT_LENGTH, FINISH
from eagle.template.template import Refused, encode_prompt
from eagle.tracking import Progress
from eagle.verifier.configuration import context_of
from eagle.verifier.verifier import Verifier

# Conversations that go through their turns together: enough for batches of prompts of about equal
# length, few enough to keep the prompts in memory.
WINDOW = 4096
# To wait for the disk after every reply would slow small replies down.
SYNC_SECONDS = 10.0


@dataclass(frozen=True)
class Prompt:
    """All turns before a reply, as tokens, and how the reply is to be written."""

    row: int
    """Index of the conversation."""
    turn: int
    """Index of the reply among the conversation's messages."""
    token_ids: list[int]
    maximum_new_tokens: int
    """Longest reply, in tokens."""
    seed: int
    """Seed of this reply's sampling; its own, so that it does not depend on other replies."""


@dataclass(frozen=True)
class Reply:
    """A reply that was written."""

    text: str
    tokens: int
    """Number of tokens, with the stop token."""
    complete: bool
    """Whether the reply ends with its stop token, and not at its longest length."""


class Backend(Protocol):
    """Writes replies: this process or a server."""

    context: int
    """Longest prompt and reply together, in tokens."""

    def replies(
        self, prompts: list[Prompt], done: Container[tuple[int, int]]
    ) -> Iterator[tuple[Prompt, Reply]]:
        """Yield a reply to each prompt whose (row, turn) is not in `done`, in any order.

        `done` must not change the other replies.
        """
        ...


class Journal:
    """A file of the finished replies, with which an interrupted run continues.

    The content of a line is JSON of row, turn and reply.
    """

    def __init__(self, folder: Path, *inputs: str):
        """Open the journal of these inputs and read the replies in it.

        Lines that are cut off or damaged are taken out, counted and printed.

        Args:
            inputs: everything that the replies depend on; its hash is in the file's name.
        """
        key = hashlib.sha256("\n".join(inputs).encode()).hexdigest()
        self.path = path = folder / f"replies-{key[:16]}.jsonl"
        self.replies: dict[tuple[int, int], Reply] = {}
        make_folder(folder)
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        whole = [line for line in lines if self._read(line)]
        if damaged := len(lines) - len(whole):
            print(
                f"{path}: {damaged:,} of {len(lines):,} lines are cut off or damaged; their "
                "replies are written anew",
                file=sys.stderr,
            )
            with whole_file(path) as partial:
                partial.write_bytes(b"".join(whole))

    def _read(self, line: bytes) -> bool:
        """Keep the reply of a line; returns whether the line is whole."""
        content = content_of(line)
        if content is None:
            return False
        try:
            row, turn, reply = _ENTRY.validate_json(content)
        except ValidationError:
            return False
        self.replies[row, turn] = reply
        return True

    def __enter__(self) -> Self:
        self.file = self.path.open("ab")
        sync(self.path.parent)
        self.synced_at = time.monotonic()
        return self

    def __exit__(self, *_error) -> None:
        with naming(self.path):
            self.file.close()
            sync(self.path)

    def add(self, prompt: Prompt, reply: Reply) -> None:
        """Write a reply to the file at once: a kill takes none, and a power cut at most those of
        the last SYNC_SECONDS."""
        self.replies[prompt.row, prompt.turn] = reply
        content = json.dumps([prompt.row, prompt.turn, asdict(reply)]).encode() + b"\n"
        with naming(self.path):
            self.file.write(journal_line(content))
            self.file.flush()
            if time.monotonic() - self.synced_at >= SYNC_SECONDS:
                sync(self.path)
                self.synced_at = time.monotonic()


_ENTRY = TypeAdapter(tuple[int, int, Reply])


def regenerate(
    conversations: list[dict],
    backend: Backend,
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    settings: Regenerate,
    journal: Journal,
    progress: Progress,
) -> tuple[list[dict], dict[str, int]]:
    """Replace every assistant turn, first to last, each conditioned on the regenerated history.

    Args:
        journal: opened; replies in it are not written again, new ones are added.
        progress: advanced by one for each new reply.

    Returns:
        The conversations in the same order with the same ids, and counts. A conversation ends
        before a reply that is empty, or whose prompt fills the context; it is left out if that is
        its first reply.

    Raises:
        InputError: the template refuses a conversation, or the backend fails.
    """
    regenerated: list[dict] = []
    counts: Counter[str] = Counter(kept=len(journal.replies))
    for first in range(0, len(conversations), WINDOW):
        window = _Window(conversations[first : first + WINDOW], first)
        while prompts := window.prompts(tokenizer, template, settings, backend.context, counts):
            _write(prompts, backend, journal, progress)
            for prompt in prompts:
                window.add(prompt, journal.replies[prompt.row, prompt.turn], counts)
        regenerated += window.regenerated
    with_reply = [
        row for row in regenerated if any(m["role"] == "assistant" for m in row["messages"])
    ]
    counts["left_out"] = len(regenerated) - len(with_reply)
    return with_reply, dict(counts)


def _write(prompts: list[Prompt], backend: Backend, journal: Journal, progress: Progress) -> None:
    """Write the replies that are not in the journal yet, and add them to it."""
    started, tokens = time.monotonic(), 0
    for prompt, reply in backend.replies(prompts, frozenset(journal.replies)):
        journal.add(prompt, reply)
        tokens += reply.tokens
        rate = tokens / (time.monotonic() - started)
        progress.advance(note=f"{rate:,.0f} tokens/s")


class _Window:
    """Some of the conversations, each regenerated up to some turn."""

    def __init__(self, conversations: list[dict], first: int):
        """Args: first: index of the first of them among all conversations."""
        self.first = first
        self.regenerated = [{"id": row["id"], "messages": []} for row in conversations]
        self.remaining = [list(row["messages"]) for row in conversations]
        """The messages of each conversation that are not in `regenerated` yet."""

    def prompts(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: str,
        settings: Regenerate,
        context: int,
        counts: Counter[str],
    ) -> list[Prompt]:
        """A prompt for the next reply of each conversation that has one.

        Raises:
            InputError: the template refuses a conversation.
        """
        prompts = []
        for index, turns in enumerate(self.remaining):
            messages = self.regenerated[index]["messages"]
            while turns and turns[0]["role"] != "assistant":
                messages.append(turns.pop(0))
            if not turns:
                continue
            try:
                token_ids = encode_prompt(tokenizer, template, messages)
            except Refused as refusal:
                raise InputError(
                    f"conversation {self.regenerated[index]['id']!r}: {refusal}; leave such "
                    "conversations out (system turns: sharegpt.system_turns)"
                ) from None
            maximum_new_tokens = min(settings.maximum_new_tokens, context - len(token_ids))
            if maximum_new_tokens < 1:
                counts["longer_than_context"] += 1
                self._end(index)
                continue
            name = f"{settings.seed}/{self.regenerated[index]['id']}/{len(messages)}"
            seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) >> 1
            prompts.append(
                Prompt(self.first + index, len(messages), token_ids, maximum_new_tokens, seed)
            )
        return prompts

    def add(self, prompt: Prompt, reply: Reply, counts: Counter[str]) -> None:
        """Put a reply in its place; an empty one ends its conversation."""
        index = prompt.row - self.first
        counts["replies"] += 1
        counts["incomplete"] += not reply.complete
        if reply.text:
            self.remaining[index].pop(0)
            message = {"role": "assistant", "content": reply.text}
            if not reply.complete:  # its end is not taught
                message[FINISH] = CUT_AT_LENGTH
            self.regenerated[index]["messages"].append(message)
        else:
            counts["empty"] += 1
            self._end(index)

    def _end(self, index: int) -> None:
        self.regenerated[index]["messages"].pop()  # the prompt that has no reply
        self.remaining[index] = []


class TransformersBackend:
    """Runs the verifier in this process, on batches of prompts of about equal length."""

    def __init__(
        self, verifier: Verifier, tokenizer: PreTrainedTokenizerBase, settings: Regenerate
    ):
        self.verifier, self.tokenizer, self.settings = verifier, tokenizer, settings
        self.context = context_of(verifier.config)

    def replies(
        self, prompts: list[Prompt], done: Container[tuple[int, int]]
    ) -> Iterator[tuple[Prompt, Reply]]:
        """As in `Backend`.

        Rounding makes a reply depend on the other prompts of its batch. So if one reply of a batch
        is not done, the whole batch is computed again.

        Raises:
            InputError: a batch does not fit in the device's memory.
        """
        prompts = sorted(prompts, key=lambda prompt: len(prompt.token_ids))  # for little padding
        for start in range(0, len(prompts), self.settings.batch_size):
            batch = prompts[start : start + self.settings.batch_size]
            new = [prompt for prompt in batch if (prompt.row, prompt.turn) not in done]
            if not new:
                continue
            try:
                replies = self._generate(batch)
            except torch.OutOfMemoryError:
                raise InputError(
                    f"regenerate.batch_size = {self.settings.batch_size}: {len(batch)} prompts of "
                    f"up to {len(batch[-1].token_ids)} tokens do not fit the device's memory; "
                    "lower it (what is written so far is kept)"
                ) from None
            for prompt, token_ids in zip(batch, replies, strict=True):
                complete = token_ids[-1] in self.verifier.stop_token_ids
                text_ids = token_ids[:-1] if complete else token_ids
                text = self.tokenizer.decode(text_ids, skip_special_tokens=True).strip()
                if prompt in new:
                    yield prompt, Reply(text, len(token_ids), complete)

    @torch.inference_mode()
    def _generate(self, prompts: list[Prompt]) -> list[list[int]]:
        """The tokens of each reply; a complete one ends with its stop token."""
        model, device = self.verifier.model, self.verifier.head.device
        stop = self.verifier.stop_token_ids
        longest = max(len(prompt.token_ids) for prompt in prompts)
        # padded on the left, so that the last column [B, T] has the last token of every prompt
        paddings = [longest - len(prompt.token_ids) for prompt in prompts]
        token_ids = torch.tensor(
            [[stop[0]] * n + p.token_ids for n, p in zip(paddings, prompts, strict=True)],
            device=device,
        )
        attention = torch.tensor([[0] * n + [1] * (longest - n) for n in paddings], device=device)
        # a uniform number for each token of each reply, from the reply's own seed
        uniforms = [
            torch.rand(p.maximum_new_tokens, generator=torch.Generator().manual_seed(p.seed))
            for p in prompts
        ]
        cache = DynamicCache(config=model.config)
        replies: list[list[int]] = [[] for _ in prompts]
        active = list(range(len(prompts)))  # rows of the batch whose reply is unfinished
        while True:
            positions = attention.cumsum(-1).sub_(1).clamp_(min=0)[:, -token_ids.shape[1] :]
            logits = model(
                token_ids,
                attention_mask=attention,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]  # [B, V]
            finite = logits.amax(-1).isfinite().tolist()  # NaN and infinity come through a maximum
            if not all(finite):
                prompt = prompts[active[finite.index(False)]]
                raise InputError(
                    f"conversation {prompt.row} (counted from 0), turn {prompt.turn}: the "
                    f"verifier's logits are not finite in {self.settings.dtype}, so no reply can "
                    "be written; set regenerate.dtype to bfloat16 or float32"
                )
            next_uniforms = torch.stack([uniforms[row][len(replies[row])] for row in active])
            sampled = sample(logits.float(), next_uniforms.to(device), self.settings.temperature)
            for row, token in zip(active, sampled.tolist(), strict=True):
                replies[row].append(token)
            unfinished = [
                index
                for index, row in enumerate(active)
                if replies[row][-1] not in stop
                and len(replies[row]) < prompts[row].maximum_new_tokens
            ]
            if not unfinished:
                return replies
            if len(unfinished) < len(active):  # finished rows leave the batch
                indices = torch.tensor(unfinished, device=device)
                cache.batch_select_indices(indices)
                attention, sampled = attention[indices], sampled[indices]
                active = [active[index] for index in unfinished]
            token_ids = sampled[:, None]
            attention = torch.cat([attention, attention.new_ones(len(active), 1)], dim=-1)


def sample(logits: Tensor, uniforms: Tensor, temperature: float) -> Tensor:
    """Sample a token for each row of logits, by inverting the cumulative distribution.

    Args:
        logits: float [B, V].
        uniforms: a uniform number from [0, 1) for each row, float [B].
        temperature: 0 takes the most probable token.

    Returns:
        Token ids, int64 [B].
    """
    if temperature == 0:
        return logits.argmax(-1)
    cumulative = (logits / temperature).softmax(-1).cumsum(-1)
    thresholds = uniforms[:, None] * cumulative[:, -1:]
    sampled = torch.searchsorted(cumulative, thresholds, right=True)[:, 0]
    return sampled.clamp_(max=logits.shape[-1] - 1)
