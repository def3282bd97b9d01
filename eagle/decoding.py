"""Greedy decoding with a key-value cache: vanilla, and a speculative chain that drafts k tokens.

Shapes: T new tokens of one step, H hidden, V vocabulary; batch 1.
"""

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache

from eagle.acceptance import accept_greedy
from eagle.draft import Draft
from eagle.errors import InputError
from eagle.loss import Vocabulary, whole_vocabulary
from eagle.verifier import Verifier


@dataclass
class Generation:
    """What one prompt led to."""

    token_ids: list[int]
    """New tokens, up to and with the stop token, at most the asked number."""
    prefill_seconds: float
    decode_seconds: float
    verifier_steps: int
    """Verifier forwards after the prefill."""
    accepted: list[int] = field(default_factory=list)
    """Drafted tokens accepted in each verify step, counted before cutting at stop or length."""

    @property
    def seconds(self) -> float:
        return self.prefill_seconds + self.decode_seconds


@torch.inference_mode()
def vanilla(verifier: Verifier, prompt: list[int], maximum_new_tokens: int) -> Generation:
    """One verifier forward a token: what speculative decoding is measured against.

    Raises:
        InputError: prompt and new tokens do not fit the verifier's context.
    """
    _check_context(verifier, len(prompt) + maximum_new_tokens)
    clock = _Clock(verifier.head.device)
    session = VerifierSession(verifier)
    token = int(session.logits(session.step(prompt)[-1:]).argmax())
    prefill_seconds = clock.lap()
    generated = [token]
    while len(generated) < maximum_new_tokens and token not in verifier.stop_token_ids:
        token = int(session.logits(session.step([token])).argmax())
        generated.append(token)
    return Generation(generated, prefill_seconds, clock.lap(), len(generated) - 1)


@torch.inference_mode()
def chain(
    verifier: Verifier,
    draft: Draft,
    prompt: list[int],
    maximum_new_tokens: int,
    draft_length: int,
    vocabulary: Vocabulary | None = None,
) -> Generation:
    """Draft `draft_length` tokens, verify them in one forward, repeat (paper, section 3).

    Args:
        vocabulary: the tokens that can be drafted; None: all. The verifier decides among all of
            them in any case, so fewer cost acceptance at most, and spare most of the head's
            product (FR-Spec, arXiv 2502.14856).

    Raises:
        InputError: prompt, new tokens and one draft do not fit the verifier's context.
    """
    _check_context(verifier, len(prompt) + maximum_new_tokens + draft_length)
    clock = _Clock(verifier.head.device)
    session = VerifierSession(verifier)
    drafting = _DraftSession(draft, verifier, vocabulary or whole_vocabulary(verifier.head))
    features = session.step(prompt)  # [P, H]
    token = int(session.logits(features[-1:]).argmax())
    prefill_seconds = clock.lap()
    generation = Generation([token], prefill_seconds, 0.0, 0)
    # pairs (f_t, token t + 1) that the draft has not seen yet, all with true features
    pending = [*prompt[1:], token]
    while not _finished(generation.token_ids, verifier.stop_token_ids, maximum_new_tokens):
        drafted = drafting.propose(features, pending, draft_length)
        features = session.step([token, *drafted.tolist()])  # [k + 1, H]
        chosen = session.logits(features).argmax(-1)  # [k + 1]
        accepted = accept_greedy(drafted, chosen)
        session.forget(draft_length - accepted)
        pending = [*drafted[:accepted].tolist(), int(chosen[accepted])]
        features = features[: accepted + 1]
        token = pending[-1]
        generation.token_ids += pending
        generation.accepted.append(accepted)
        generation.verifier_steps += 1
    _cut(generation.token_ids, verifier.stop_token_ids, maximum_new_tokens)
    generation.decode_seconds = clock.lap()
    return generation


class VerifierSession:
    """The verifier with a cache of everything it has read."""

    def __init__(self, verifier: Verifier):
        self.verifier = verifier
        self.cache = DynamicCache(config=verifier.config)

    def step(self, token_ids: list[int]) -> Tensor:
        """Features [T, H] of the next tokens, which join the cache."""
        rows = torch.tensor([token_ids], device=self.verifier.head.device)
        output = self.verifier.model.base_model(
            input_ids=rows, past_key_values=self.cache, use_cache=True
        )
        return output.last_hidden_state[0]

    def logits(self, features: Tensor) -> Tensor:
        """[T, V] from features [T, H]."""
        return features @ self.verifier.head.T

    def forget(self, tokens: int) -> None:
        """Take the last tokens out of the cache."""
        if tokens:
            self.cache.crop(-tokens)


class _DraftSession:
    """The draft with a cache of the pairs it has read with TRUE features."""

    def __init__(self, draft: Draft, verifier: Verifier, vocabulary: Vocabulary):
        self.draft, self.verifier, self.vocabulary = draft, verifier, vocabulary
        self.keys = self.values = None  # each [1, G, N, D]

    def propose(self, features: Tensor, next_tokens: list[int], count: int) -> Tensor:
        """`count` drafted tokens [count].

        Args:
            features: [T, H], the verifier's, of positions the draft has not read.
            next_tokens: the T tokens that follow those positions.
        """
        hidden = self._step(features, torch.tensor(next_tokens, device=features.device))[-1:]
        read = self.keys.shape[2]
        drafted = [self._choose(hidden)]
        while len(drafted) < count:  # from here on the draft feeds on its own features
            hidden = self._step(hidden, drafted[-1])
            drafted.append(self._choose(hidden))
        self.keys, self.values = self.keys[:, :, :read], self.values[:, :, :read]
        return torch.cat(drafted)

    def _choose(self, hidden: Tensor) -> Tensor:
        """The most likely token [1] after a feature [1, H]."""
        return self.vocabulary.token_ids[(hidden @ self.vocabulary.head.T).argmax(-1)]

    def _step(self, features: Tensor, next_tokens: Tensor) -> Tensor:
        start = 0 if self.keys is None else self.keys.shape[2]
        positions = torch.arange(start, start + len(next_tokens), device=features.device)
        embeddings = self.verifier.embedding[next_tokens]
        return self.draft(features, embeddings, positions, self._attend)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if self.keys is not None:
            key = torch.cat([self.keys, key], dim=2)
            value = torch.cat([self.values, value], dim=2)
        self.keys, self.values = key, value
        new, seen = query.shape[2], key.shape[2]
        # row i of the new tokens sees everything before them and itself: [T, N + T]
        mask = torch.ones(new, seen, dtype=torch.bool, device=query.device).tril(seen - new)
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, enable_gqa=True
        )


class _Clock:
    """Seconds between laps, with the device's work finished."""

    def __init__(self, device: torch.device):
        self.device = device
        self.lap()

    def lap(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now, before = time.perf_counter(), getattr(self, "last", 0.0)
        self.last = now
        return now - before


def _finished(token_ids: list[int], stop_token_ids: list[int], maximum: int) -> bool:
    return len(token_ids) >= maximum or any(token in stop_token_ids for token in token_ids)


def _cut(token_ids: list[int], stop_token_ids: list[int], maximum: int) -> None:
    """Drop what an accepted run holds beyond the stop token or the length."""
    stops = [i for i, token in enumerate(token_ids) if token in stop_token_ids]
    del token_ids[min([maximum] + [stop + 1 for stop in stops[:1]]) :]


def _check_context(verifier: Verifier, needed: int) -> None:
    limit = verifier.config.max_position_embeddings
    if needed > limit:
        raise InputError(
            f"prompt and generation need {needed} positions, the verifier has {limit}; shorten "
            "the prompt or lower evaluate.maximum_new_tokens"
        )
