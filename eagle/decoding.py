"""Decoding with a key-value cache: vanilla, and a speculative chain that drafts k tokens.

Shapes: T new tokens of one step, H hidden, V vocabulary; batch 1.
"""

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache

from eagle.acceptance import Sampling, accept_greedy, accept_sampled, draw
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


@dataclass
class Choice:
    """How tokens are chosen from logits: the most likely ones, or drawn."""

    sampling: Sampling | None = None
    """None: temperature 0."""
    generator: torch.Generator | None = None
    """Of the drawn ones, on the CPU; None takes torch's own."""

    def tokens(self, logits: Tensor) -> Tensor:
        """One token a row [T] of logits [T, V]."""
        if self.sampling is None:
            return logits.argmax(-1)
        return draw(self.sampling.probabilities(logits), self.uniforms(len(logits), logits.device))

    def uniforms(self, count: int, device: torch.device) -> Tensor:
        return torch.rand(count, generator=self.generator, dtype=torch.float64).to(device)


GREEDY = Choice()


@torch.inference_mode()
def vanilla(
    verifier: Verifier, prompt: list[int], maximum_new_tokens: int, choice: Choice = GREEDY
) -> Generation:
    """One verifier forward a token: what speculative decoding is measured against.

    Raises:
        InputError: prompt and new tokens do not fit the verifier's context.
    """
    _check_context(verifier, len(prompt) + maximum_new_tokens)
    clock = _Clock(verifier.head.device)
    session = VerifierSession(verifier)
    token = int(choice.tokens(session.logits(session.step(prompt)[-1:])))
    prefill_seconds = clock.lap()
    generated = [token]
    while len(generated) < maximum_new_tokens and token not in verifier.stop_token_ids:
        token = int(choice.tokens(session.logits(session.step([token]))))
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
    choice: Choice = GREEDY,
) -> Generation:
    """Draft `draft_length` tokens, verify them in one forward, repeat (paper, section 3).

    Args:
        vocabulary: the tokens that can be drafted; None: all. The verifier decides among all of
            them in any case, so fewer cost acceptance at most, and spare most of the head's
            product (FR-Spec, arXiv 2502.14856).
        choice: of verifier and draft alike.

    Raises:
        InputError: prompt, new tokens and one draft do not fit the verifier's context.
    """
    _check_context(verifier, len(prompt) + maximum_new_tokens + draft_length)
    clock = _Clock(verifier.head.device)
    session = VerifierSession(verifier)
    drafting = _DraftSession(draft, verifier, vocabulary or whole_vocabulary(verifier.head), choice)
    features = session.step(prompt)  # [P, H]
    token = int(choice.tokens(session.logits(features[-1:])))
    prefill_seconds = clock.lap()
    generation = Generation([token], prefill_seconds, 0.0, 0)
    # pairs (f_t, token t + 1) that the draft has not seen yet, all with true features
    pending = [*prompt[1:], token]
    while not _finished(generation.token_ids, verifier.stop_token_ids, maximum_new_tokens):
        drafted, drafted_logits = drafting.propose(features, pending, draft_length)
        features = session.step([token, *drafted.tolist()])  # [k + 1, H]
        accepted, on_top = _accept(
            drafted, drafted_logits, session.logits(features), drafting.vocabulary, choice
        )
        session.forget(draft_length - accepted)
        pending = [*drafted[:accepted].tolist(), on_top]
        features = features[: accepted + 1]
        token = on_top
        generation.token_ids += pending
        generation.accepted.append(accepted)
        generation.verifier_steps += 1
    _cut(generation.token_ids, verifier.stop_token_ids, maximum_new_tokens)
    generation.decode_seconds = clock.lap()
    return generation


def _accept(
    drafted: Tensor, drafted_logits: Tensor, logits: Tensor, vocabulary: Vocabulary, choice: Choice
) -> tuple[int, int]:
    """How many of the drafted tokens [k] stand, and the token that comes on top.

    Args:
        drafted_logits: [k, S], the draft's over the vocabulary's tokens.
        logits: [k + 1, V], the verifier's.
    """
    if choice.sampling is None:
        chosen = logits.argmax(-1)
        accepted = accept_greedy(drafted, chosen)
        return accepted, int(chosen[accepted])
    p = choice.sampling.probabilities(logits)
    q = torch.zeros_like(p[:-1])
    q[:, vocabulary.token_ids] = choice.sampling.probabilities(drafted_logits)
    uniforms = choice.uniforms(len(logits), logits.device)
    accepted, on_top = accept_sampled(drafted[None], q[None], p[None], uniforms[None])
    return int(accepted), int(on_top)


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

    def __init__(self, draft: Draft, verifier: Verifier, vocabulary: Vocabulary, choice: Choice):
        self.draft, self.verifier, self.vocabulary = draft, verifier, vocabulary
        self.choice = choice
        self.keys = self.values = None  # each [1, G, N, D]

    def propose(
        self, features: Tensor, next_tokens: list[int], count: int
    ) -> tuple[Tensor, Tensor]:
        """`count` drafted tokens [count] and the logits they were chosen from [count, S].

        Args:
            features: [T, H], the verifier's, of positions the draft has not read.
            next_tokens: the T tokens that follow those positions.
        """
        hidden = self._step(features, torch.tensor(next_tokens, device=features.device))[-1:]
        read = self.keys.shape[2]
        logits = [hidden @ self.vocabulary.head.T]  # each [1, S]
        drafted = [self.vocabulary.token_ids[self.choice.tokens(logits[-1])]]
        while len(drafted) < count:  # from here on the draft feeds on its own features
            hidden = self._step(hidden, drafted[-1])
            logits.append(hidden @ self.vocabulary.head.T)
            drafted.append(self.vocabulary.token_ids[self.choice.tokens(logits[-1])])
        self.keys, self.values = self.keys[:, :, :read], self.values[:, :, :read]
        return torch.cat(drafted), torch.cat(logits)

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
