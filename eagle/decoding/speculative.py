"""Vanilla and speculative decoding of one prompt.

Shapes: P prompt tokens, T rows of a tree, H hidden, S tokens that can be drafted, V vocabulary;
batch 1.
"""

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from eagle.decoding.acceptance import accept_greedy, accept_sampled
from eagle.decoding.sampler import GREEDY, Sampler, most_likely
from eagle.decoding.sessions import DraftSession, Proposal, VerifierSession
from eagle.decoding.tree import DynamicTree, Tree
from eagle.draft.draft import Draft
from eagle.draft.vocabulary import Vocabulary, full_vocabulary
from eagle.errors import InputError
from eagle.verifier.configuration import context_of
from eagle.verifier.verifier import Verifier


@dataclass
class Generation:
    """The text that was generated for one prompt, and what it took."""

    token_ids: list[int]
    """New tokens, up to and with the stop token, at most the maximum number."""
    prefill_seconds: float
    decode_seconds: float
    verifier_steps: int
    """Verifier forwards after the prefill."""
    accepted: list[int] = field(default_factory=list)
    """Drafted tokens accepted in each verify step, counted before the text is cut at its stop token
    or its maximum length. Empty for vanilla decoding."""
    draft_seconds: float = 0.0
    """The part of decode_seconds that drafting took."""

    @property
    def seconds(self) -> float:
        return self.prefill_seconds + self.decode_seconds


@torch.inference_mode()
def vanilla(
    verifier: Verifier, prompt: list[int], maximum_new_tokens: int, sampler: Sampler = GREEDY
) -> Generation:
    """Decode with one verifier forward a token: what speculative decoding is compared with.

    Raises:
        InputError: the prompt is empty, or prompt and new tokens do not fit the verifier's context.
    """
    _check_context(verifier, prompt, maximum_new_tokens)
    clock = _Clock(verifier.head.device)
    session = VerifierSession(verifier, len(prompt) + maximum_new_tokens)
    token = sampler.token(session.logits(session.step(prompt)[-1:]))
    prefill_seconds = clock.lap()
    generated = [token]
    while len(generated) < maximum_new_tokens and token not in verifier.stop_token_ids:
        token = sampler.token(session.logits(session.step([token])))
        generated.append(token)
    session.check_finite()
    return Generation(generated, prefill_seconds, clock.lap(), len(generated) - 1)


def chain(
    verifier: Verifier,
    draft: Draft,
    prompt: list[int],
    maximum_new_tokens: int,
    draft_length: int,
    vocabulary: Vocabulary | None = None,
    sampler: Sampler = GREEDY,
) -> Generation:
    """`speculate` with a tree without branches, of `draft_length` tokens a step."""
    shape = Tree.chain(draft_length)
    return speculate(verifier, draft, prompt, maximum_new_tokens, shape, vocabulary, sampler)


@torch.inference_mode()
def speculate(
    verifier: Verifier,
    draft: Draft,
    prompt: list[int],
    maximum_new_tokens: int,
    shape: Tree | DynamicTree,
    vocabulary: Vocabulary | None = None,
    sampler: Sampler = GREEDY,
) -> Generation:
    """Draft a tree of tokens, verify all of it in one forward, repeat (paper, section 3).

    Args:
        shape: of the tree. A static tree is the same in every step; its tokens are the draft's most
            likely ones at temperature 0, and drawn without replacement above. A dynamic tree is
            grown in each step; its tokens are the most likely ones at any temperature.
        vocabulary: the tokens that can be drafted; None: all. The verifier always decides among
            all tokens, so a smaller vocabulary can only cost acceptance, and it spares most of the
            product with the head (FR-Spec, arXiv 2502.14856).
        sampler: of verifier and draft alike.

    Raises:
        InputError: the prompt is empty; prompt, new tokens and one draft do not fit the verifier's
            context; the tree needs more different tokens than can be drafted.
    """
    _check_context(verifier, prompt, maximum_new_tokens, shape.depth)
    clock = _Clock(verifier.head.device)
    rows = shape.tokens if isinstance(shape, DynamicTree) else len(shape)
    session = VerifierSession(verifier, len(prompt) + maximum_new_tokens + rows)
    drafting = DraftSession(
        draft, verifier, vocabulary or full_vocabulary(verifier.head), sampler, shape,
        len(prompt) + maximum_new_tokens,
    )  # fmt: skip
    features = session.step(prompt)  # [P, H]
    token = sampler.token(session.logits(features[-1:]))
    generation = Generation([token], clock.lap(), 0.0, 0)
    # with the features f_t: the pairs (f_t, token t + 1) that the draft has not read yet
    next_tokens = [*prompt[1:], token]
    while not _finished(generation.token_ids, verifier.stop_token_ids, maximum_new_tokens):
        proposal = drafting.propose(features, next_tokens)
        generation.draft_seconds += clock.lap()
        tree = proposal.tree
        features = session.step(proposal.tokens, tree)  # [T, H]
        row, token = _accept(proposal, session.logits(features), drafting.vocabulary, sampler)
        path = tree.path(row)
        session.keep(path, len(tree))
        next_tokens = [*(proposal.tokens[i] for i in path[1:]), token]
        features = features[path]
        generation.token_ids += next_tokens
        generation.accepted.append(len(path) - 1)
        generation.verifier_steps += 1
        generation.decode_seconds += clock.lap()
    session.check_finite()
    _cut(generation.token_ids, verifier.stop_token_ids, maximum_new_tokens)
    generation.decode_seconds += generation.draft_seconds + clock.lap()
    return generation


def _accept(
    proposal: Proposal, logits: Tensor, vocabulary: Vocabulary, sampler: Sampler
) -> tuple[int, int]:
    """The row of the last accepted token, and the verifier's token after it.

    Args:
        logits: [T, V], the verifier's.
    """
    tree = proposal.tree
    if sampler.sampling is None:
        tokens = most_likely(logits).tolist()
        row = accept_greedy(tree, proposal.tokens, tokens)
        return row, tokens[row]

    def p(row: int) -> Tensor:
        return sampler.sampling.probabilities(logits[row : row + 1])

    def q(row: int) -> Tensor:
        probabilities = torch.zeros_like(logits[:1], dtype=torch.float32)
        with_children = [r for r, children in enumerate(tree.children) if children]
        drafted = proposal.probabilities[with_children.index(row)]
        probabilities[0, vocabulary.token_ids] = drafted
        return probabilities

    row, token = accept_sampled(
        tree,
        torch.tensor([proposal.tokens], device=logits.device),
        None if proposal.probabilities is None else q,
        p,
        sampler.uniforms(1, len(tree), logits.device),
    )
    return int(row), int(token)


class _Clock:
    """Measures the seconds between laps; the device's work is waited for."""

    def __init__(self, device: torch.device):
        self.device = device
        self.last = 0.0
        self.lap()

    def lap(self) -> float:
        """Seconds since the lap before."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now, before = time.perf_counter(), self.last
        self.last = now
        return now - before


def _finished(token_ids: list[int], stop_token_ids: list[int], maximum: int) -> bool:
    return len(token_ids) >= maximum or any(token in stop_token_ids for token in token_ids)


def _cut(token_ids: list[int], stop_token_ids: list[int], maximum: int) -> None:
    """Remove the accepted tokens that come after the stop token or the maximum length."""
    stops = [i for i, token in enumerate(token_ids) if token in stop_token_ids]
    del token_ids[min([maximum] + [stop + 1 for stop in stops[:1]]) :]


def _check_context(
    verifier: Verifier, prompt: list[int], maximum_new_tokens: int, depth: int = 0
) -> None:
    if not prompt:
        raise InputError("the prompt has no token; give one of a token or more")
    limit = context_of(verifier.config)
    needed = len(prompt) + maximum_new_tokens + depth
    if needed > limit:
        raise InputError(
            f"prompt ({len(prompt)} tokens) and generation need {needed} positions, the verifier "
            f"has {limit}; shorten the prompt or lower evaluate.maximum_new_tokens and "
            "evaluate.lossless_tokens"
        )
