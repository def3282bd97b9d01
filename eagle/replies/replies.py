"""Replies written by the verifier itself: the data the paper's Table 6 finds best."""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, Self

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedTokenizerBase

from eagle.config import Regenerate
from eagle.errors import InputError
from eagle.template.template import Refused, encode_prompt
from eagle.tracking import Progress
from eagle.verifier.verifier import Verifier

# Conversations taken through all their turns together: enough to fill batches of equal lengths,
# little enough to keep their prompts in memory.
WINDOW = 4096


@dataclass(frozen=True)
class Prompt:
    """What the verifier is to answer: everything said before the reply, as tokens."""

    row: int
    turn: int
    token_ids: list[int]
    room: int
    """Longest reply, in tokens."""
    seed: int
    """Of this reply's sampling alone, so that no other reply can change it."""


@dataclass(frozen=True)
class Reply:
    text: str
    tokens: int
    complete: bool
    """Whether it came to its stop token within the room."""


class Backend(Protocol):
    """What writes replies."""

    context: int
    """Longest prompt and reply together, in tokens."""

    def replies(
        self, prompts: list[Prompt], done: Container[tuple[int, int]]
    ) -> Iterator[tuple[Prompt, Reply]]:
        """Answer, in any order, the prompts whose (row, turn) is not done. What is done changes
        no other reply."""
        ...


class Journal:
    """Replies finished so far, in a file, so that an interrupted run goes on behind them."""

    def __init__(self, folder: Path, *inputs: str):
        """Args: inputs: all that the replies depend on; other inputs have another file."""
        key = hashlib.sha256("\n".join(inputs).encode()).hexdigest()
        self.path = path = folder / f"replies-{key[:16]}.jsonl"
        self.replies: dict[tuple[int, int], Reply] = {}
        folder.mkdir(parents=True, exist_ok=True)
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        if lines and not lines[-1].endswith(b"\n"):  # cut off while it was written
            lines.pop()
            path.write_bytes(b"".join(lines))
        for line in lines:
            row, turn, reply = json.loads(line)
            self.replies[row, turn] = Reply(**reply)

    def __enter__(self) -> Self:
        self.file = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *_error) -> None:
        self.file.close()

    def add(self, prompt: Prompt, reply: Reply) -> None:
        self.replies[prompt.row, prompt.turn] = reply
        self.file.write(json.dumps([prompt.row, prompt.turn, asdict(reply)]) + "\n")
        self.file.flush()


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
        journal: opened; replies in it are not asked for again, new ones are added.
        progress: advanced by one for each new reply.

    Returns:
        The conversations in the same order with the same ids, and counts. One whose reply comes
        out empty, or whose prompt leaves no room in the context, ends before that turn, and is
        left out if that is its first.
    """
    answered: list[dict] = []
    counts: Counter[str] = Counter(kept=len(journal.replies))
    for first in range(0, len(conversations), WINDOW):
        rows = _Window(conversations[first : first + WINDOW], first)
        while asked := rows.prompts(tokenizer, template, settings, backend.context, counts):
            _answer(asked, backend, journal, progress)
            for prompt in asked:
                rows.take(prompt, journal.replies[prompt.row, prompt.turn], counts)
        answered += rows.answered
    kept = [row for row in answered if any(m["role"] == "assistant" for m in row["messages"])]
    counts["left_out"] = len(answered) - len(kept)
    return kept, dict(counts)


def _answer(prompts: list[Prompt], backend: Backend, journal: Journal, progress: Progress) -> None:
    started, tokens = time.monotonic(), 0
    for prompt, reply in backend.replies(prompts, frozenset(journal.replies)):
        journal.add(prompt, reply)
        tokens += reply.tokens
        rate = tokens / (time.monotonic() - started)
        progress.advance(note=f"{rate:,.0f} tokens/s")


class _Window:
    """Some conversations on their way: what has been said anew, and what still waits."""

    def __init__(self, conversations: list[dict], first: int):
        self.first = first
        self.answered = [{"id": row["id"], "messages": []} for row in conversations]
        self.waiting = [list(row["messages"]) for row in conversations]

    def prompts(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: str,
        settings: Regenerate,
        context: int,
        counts: Counter[str],
    ) -> list[Prompt]:
        """One for each conversation that has a reply to come."""
        prompts = []
        for index, turns in enumerate(self.waiting):
            messages = self.answered[index]["messages"]
            while turns and turns[0]["role"] != "assistant":
                messages.append(turns.pop(0))
            if not turns:
                continue
            try:
                token_ids = encode_prompt(tokenizer, template, messages)
            except Refused as refusal:
                raise InputError(
                    f"conversation {self.answered[index]['id']!r}: {refusal}; leave such "
                    "conversations out (system turns: sharegpt.system_turns)"
                ) from None
            room = min(settings.maximum_new_tokens, context - len(token_ids))
            if room < 1:
                counts["longer_than_context"] += 1
                self._end(index)
                continue
            name = f"{settings.seed}/{self.answered[index]['id']}/{len(messages)}"
            seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) >> 1
            prompts.append(Prompt(self.first + index, len(messages), token_ids, room, seed))
        return prompts

    def take(self, prompt: Prompt, reply: Reply, counts: Counter[str]) -> None:
        index = prompt.row - self.first
        counts["replies"] += 1
        counts["incomplete"] += not reply.complete
        if reply.text:
            self.waiting[index].pop(0)
            self.answered[index]["messages"].append({"role": "assistant", "content": reply.text})
        else:
            counts["empty"] += 1
            self._end(index)

    def _end(self, index: int) -> None:
        self.answered[index]["messages"].pop()  # the question it does not answer
        self.waiting[index] = []


class TransformersBackend:
    """The verifier in this process: batches of about equally long prompts over one KV cache."""

    def __init__(
        self, verifier: Verifier, tokenizer: PreTrainedTokenizerBase, settings: Regenerate
    ):
        self.verifier, self.tokenizer, self.settings = verifier, tokenizer, settings
        self.context = verifier.config.max_position_embeddings

    def replies(
        self, prompts: list[Prompt], done: Container[tuple[int, int]]
    ) -> Iterator[tuple[Prompt, Reply]]:
        """As `Backend`. Rounding makes a reply depend on the others of its batch, so a batch that
        is not wholly done is written again as a whole.

        Raises:
            InputError: a batch does not fit the device's memory.
        """
        prompts = sorted(prompts, key=lambda prompt: len(prompt.token_ids))  # little padding
        for start in range(0, len(prompts), self.settings.batch_size):
            batch = prompts[start : start + self.settings.batch_size]
            new = [prompt for prompt in batch if (prompt.row, prompt.turn) not in done]
            if not new:
                continue
            try:
                written = self._write(batch)
            except torch.OutOfMemoryError:
                raise InputError(
                    f"regenerate.batch_size = {self.settings.batch_size}: {len(batch)} prompts of "
                    f"up to {len(batch[-1].token_ids)} tokens do not fit the device's memory; "
                    "lower it (what is written so far is kept)"
                ) from None
            for prompt, token_ids in zip(batch, written, strict=True):
                complete = token_ids[-1] in self.verifier.stop_token_ids
                said = token_ids[:-1] if complete else token_ids
                text = self.tokenizer.decode(said, skip_special_tokens=True).strip()
                if prompt in new:
                    yield prompt, Reply(text, len(token_ids), complete)

    @torch.inference_mode()
    def _write(self, prompts: list[Prompt]) -> list[list[int]]:
        """The tokens of each reply, with its stop token if it came to one."""
        model, device = self.verifier.model, self.verifier.head.device
        stop = self.verifier.stop_token_ids
        longest = max(len(prompt.token_ids) for prompt in prompts)
        # padded on the left, so that every row's next token stands in the last column: [B, T]
        paddings = [longest - len(prompt.token_ids) for prompt in prompts]
        token_ids = torch.tensor(
            [[stop[0]] * n + p.token_ids for n, p in zip(paddings, prompts, strict=True)],
            device=device,
        )
        attention = torch.tensor([[0] * n + [1] * (longest - n) for n in paddings], device=device)
        draws = [
            torch.rand(p.room, generator=torch.Generator().manual_seed(p.seed)) for p in prompts
        ]
        cache = DynamicCache(config=model.config)
        replies: list[list[int]] = [[] for _ in prompts]
        writing = list(range(len(prompts)))
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
            uniforms = torch.stack([draws[row][len(replies[row])] for row in writing])
            chosen = _choose(logits.float(), uniforms.to(device), self.settings.temperature)
            for row, token in zip(writing, chosen.tolist(), strict=True):
                replies[row].append(token)
            going_on = [
                index
                for index, row in enumerate(writing)
                if replies[row][-1] not in stop and len(replies[row]) < prompts[row].room
            ]
            if not going_on:
                return replies
            if len(going_on) < len(writing):  # finished ones cost nothing from here on
                kept = torch.tensor(going_on, device=device)
                cache.batch_select_indices(kept)
                attention, chosen = attention[kept], chosen[kept]
                writing = [writing[index] for index in going_on]
            token_ids = chosen[:, None]
            attention = torch.cat([attention, attention.new_ones(len(writing), 1)], dim=-1)


def _choose(logits: Tensor, uniforms: Tensor, temperature: float) -> Tensor:
    """A token for each row of logits [B, V]: the likeliest at temperature 0, else the one in
    whose share of the probability the row's uniform number [B] falls. Returns int64 [B]."""
    if temperature == 0:
        return logits.argmax(-1)
    bounds = (logits / temperature).softmax(-1).cumsum(-1)
    drawn = uniforms[:, None] * bounds[:, -1:]
    return torch.searchsorted(bounds, drawn, right=True)[:, 0].clamp_(max=logits.shape[-1] - 1)
