"""Decoding with a key-value cache: vanilla, and speculative along a chain or a tree of tokens.

Shapes: P prompt tokens, N tokens read before, T new tokens or rows of a tree, H hidden, S tokens
that can be drafted, V vocabulary; batch 1.
"""

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from eagle.decoding.acceptance import accept_greedy, accept_sampled
from eagle.decoding.sampler import GREEDY, Sampler, likeliest
from eagle.decoding.sessions import DraftSession, Proposal, VerifierSession
from eagle.decoding.tree import DynamicTree, Tree
from eagle.draft.draft import Draft
from eagle.draft.vocabulary import Vocabulary, full_vocabulary
from eagle.errors import InputError
from eagle.verifier.verifier import Verifier


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
    draft_seconds: float = 0.0
    """What of decode_seconds drafting took."""

    @property
    def seconds(self) -> float:
        return self.prefill_seconds + self.decode_seconds


@torch.inference_mode()
def vanilla(
    verifier: Verifier, prompt: list[int], maximum_new_tokens: int, choice: Sampler = GREEDY
) -> Generation:
    """One verifier forward a token: what speculative decoding is measured against.

    Raises:
        InputError: the prompt is empty, or prompt and new tokens do not fit the verifier's context.
    """
    _check_context(verifier, prompt, maximum_new_tokens)
    clock = _Clock(verifier.head.device)
    session = VerifierSession(verifier, len(prompt) + maximum_new_tokens)
    token = choice.token(session.logits(session.step(prompt)[-1:]))
    prefill_seconds = clock.lap()
    generated = [token]
    while len(generated) < maximum_new_tokens and token not in verifier.stop_token_ids:
        token = choice.token(session.logits(session.step([token])))
        generated.append(token)
    return Generation(generated, prefill_seconds, clock.lap(), len(generated) - 1)


def chain(
    verifier: Verifier,
    draft: Draft,
    prompt: list[int],
    maximum_new_tokens: int,
    draft_length: int,
    vocabulary: Vocabulary | None = None,
    choice: Sampler = GREEDY,
) -> Generation:
    """`speculate` along a tree without branches, `draft_length` tokens a step."""
    shape = Tree.chain(draft_length)
    return speculate(verifier, draft, prompt, maximum_new_tokens, shape, vocabulary, choice)


@torch.inference_mode()
def speculate(
    verifier: Verifier,
    draft: Draft,
    prompt: list[int],
    maximum_new_tokens: int,
    shape: Tree | DynamicTree,
    vocabulary: Vocabulary | None = None,
    choice: Sampler = GREEDY,
) -> Generation:
    """Draft a tree of tokens, verify all of it in one forward, repeat (paper, section 3).

    Args:
        shape: of the tree: the same in every step, its tokens the draft's most likely ones at
            temperature 0 and drawn without replacement above; or how to grow one in each step,
            whose tokens are the draft's most likely ones at any temperature.
        vocabulary: the tokens that can be drafted; None: all. The verifier decides among all of
            them in any case, so fewer cost acceptance at most, and spare most of the head's
            product (FR-Spec, arXiv 2502.14856).
        choice: of verifier and draft alike.

    Raises:
        InputError: the prompt is empty; prompt, new tokens and one draft do not fit the verifier's
            context; the tree asks for more different tokens than can be drafted.
    """
    _check_context(verifier, prompt, maximum_new_tokens, shape.depth)
    clock = _Clock(verifier.head.device)
    rows = shape.tokens if isinstance(shape, DynamicTree) else len(shape)
    session = VerifierSession(verifier, len(prompt) + maximum_new_tokens + rows)
    drafting = DraftSession(
        draft, verifier, vocabulary or full_vocabulary(verifier.head), choice, shape,
        len(prompt) + maximum_new_tokens,
    )  # fmt: skip
    features = session.step(prompt)  # [P, H]
    token = choice.token(session.logits(features[-1:]))
    generation = Generation([token], clock.lap(), 0.0, 0)
    # pairs (f_t, token t + 1) that the draft has not seen yet, all with true features
    pending = [*prompt[1:], token]
    while not _finished(generation.token_ids, verifier.stop_token_ids, maximum_new_tokens):
        proposal = drafting.propose(features, pending)
        generation.draft_seconds += clock.lap()
        tree = proposal.tree
        features = session.step(proposal.tokens, tree)  # [T, H]
        row, on_top = _accept(proposal, session.logits(features), drafting.vocabulary, choice)
        path = tree.path(row)
        session.keep(path, len(tree))
        pending = [*(proposal.tokens[i] for i in path[1:]), on_top]
        features = features[path]
        generation.token_ids += pending
        generation.accepted.append(len(path) - 1)
        generation.verifier_steps += 1
        generation.decode_seconds += clock.lap()
    _cut(generation.token_ids, verifier.stop_token_ids, maximum_new_tokens)
    generation.decode_seconds += generation.draft_seconds + clock.lap()
    return generation


def _accept(
    proposal: Proposal, logits: Tensor, vocabulary: Vocabulary, choice: Sampler
) -> tuple[int, int]:
    """The row of the last drafted token that stands, and the token that comes on top.

    Args:
        logits: [T, V], the verifier's.
    """
    tree = proposal.tree
    if choice.sampling is None:
        chosen = likeliest(logits).tolist()
        row = accept_greedy(tree, proposal.tokens, chosen)
        return row, chosen[row]

    def p(row: int) -> Tensor:
        return choice.sampling.probabilities(logits[row : row + 1])

    def q(row: int) -> Tensor:
        whole = torch.zeros_like(logits[:1], dtype=torch.float32)
        with_children = [r for r, children in enumerate(tree.children) if children]
        whole[0, vocabulary.token_ids] = proposal.probabilities[with_children.index(row)]
        return whole

    row, on_top = accept_sampled(
        tree,
        torch.tensor([proposal.tokens], device=logits.device),
        None if proposal.probabilities is None else q,
        p,
        choice.uniforms(1, len(tree), logits.device),
    )
    return int(row), int(on_top)


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


def _check_context(
    verifier: Verifier, prompt: list[int], maximum_new_tokens: int, depth: int = 0
) -> None:
    if not prompt:
        raise InputError("the prompt has no token; give one of a token or more")
    limit = verifier.config.max_position_embeddings
    needed = len(prompt) + maximum_new_tokens + depth
    if needed > limit:
        raise InputError(
            f"prompt ({len(prompt)} tokens) and generation need {needed} positions, the verifier "
            f"has {limit}; shorten the prompt or lower evaluate.maximum_new_tokens and "
            "evaluate.lossless_tokens"
        )
