"""Decoding with a key-value cache: vanilla, and speculative along a chain or a tree of tokens.

Shapes: P prompt tokens, N tokens read before, T new tokens or rows of a tree, H hidden, S tokens
that can be drafted, V vocabulary; batch 1.
"""

import time
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from eagle.acceptance import Sampling, accept_greedy, accept_sampled, draw, draw_distinct
from eagle.cache import KeyValues
from eagle.draft import Draft
from eagle.errors import InputError
from eagle.loss import Vocabulary, whole_vocabulary
from eagle.packing import product
from eagle.tree import Growth, Tree
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
    draft_seconds: float = 0.0
    """What of decode_seconds drafting took."""

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

    def token(self, logits: Tensor) -> int:
        """One token from logits [1, V]."""
        if self.sampling is None:
            return int(likeliest(logits))
        uniforms = self.uniforms(1, 1, logits.device)[0]
        return int(draw(self.sampling.probabilities(logits), uniforms))

    def uniforms(self, rows: int, columns: int, device: torch.device) -> Tensor:
        drawn = torch.rand(rows, columns, generator=self.generator, dtype=torch.float64)
        return drawn.to(device)


GREEDY = Choice()


@torch.inference_mode()
def vanilla(
    verifier: Verifier, prompt: list[int], maximum_new_tokens: int, choice: Choice = GREEDY
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
    choice: Choice = GREEDY,
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
    shape: Tree | Growth,
    vocabulary: Vocabulary | None = None,
    choice: Choice = GREEDY,
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
    rows = shape.tokens if isinstance(shape, Growth) else len(shape)
    session = VerifierSession(verifier, len(prompt) + maximum_new_tokens + rows)
    drafting = DraftSession(
        draft, verifier, vocabulary or whole_vocabulary(verifier.head), choice, shape,
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


class Proposal(NamedTuple):
    """What the draft puts before the verifier."""

    tree: Tree
    tokens: list[int]
    """[T], of the tree's rows; the root's is the last token that stands."""
    probabilities: list[Tensor] | None
    """q of the tree's rows that have children, in their order, each [S]; None where the tokens
    were chosen, not drawn."""


def _accept(
    proposal: Proposal, logits: Tensor, vocabulary: Vocabulary, choice: Choice
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


class VerifierSession:
    """The verifier with a cache of everything it has read.

    Args:
        capacity: tokens the cache has room for, rows of a tree included.

    Raises:
        InputError: the verifier's attention is none that the cache serves.
    """

    def __init__(self, verifier: Verifier, capacity: int):
        self.verifier = verifier
        head = verifier.head
        self.cache = KeyValues(verifier.config, capacity, head.dtype, head.device)

    def step(self, token_ids: list[int], tree: Tree | None = None) -> Tensor:
        """Features [T, H] of the next tokens, which join the cache.

        Args:
            tree: which of them sees which, all of them seeing everything before; None: a chain.
        """
        read, new = self.cache.length, len(token_ids)
        device = self.verifier.head.device
        mask = positions = None
        if new > 1 and read:
            tree = tree or Tree.chain(new - 1)
            positions = torch.tensor([tree.depths], device=device) + read
            mask = _with_everything_before(tree.seen, read, device)
        output = self.verifier.model.base_model(
            input_ids=torch.tensor([token_ids], device=device),
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
        )
        return output.last_hidden_state[0]

    def logits(self, features: Tensor) -> Tensor:
        """[T, V] from features [T, H]."""
        return self.verifier.model.get_output_embeddings()(features)

    def keep(self, rows: list[int], of: int) -> None:
        """Of the newest `of` tokens only some rows, ascending, stay in the cache."""
        self.cache.keep(rows, of)


class DraftSession:
    """The draft with a cache of the pairs it has read with TRUE features.

    Args:
        shape: of the trees it proposes.
        capacity: tokens of a whole text.

    Raises:
        InputError: the shape asks for more different tokens than the vocabulary has.
    """

    def __init__(
        self,
        draft: Draft,
        verifier: Verifier,
        vocabulary: Vocabulary,
        choice: Choice,
        shape: Tree | Growth,
        capacity: int,
    ):
        self.draft, self.verifier, self.vocabulary = draft, verifier, vocabulary
        self.choice, self.shape = choice, shape
        if isinstance(shape, Growth):
            width, rows = shape.top_k, shape.depth * shape.top_k
        else:
            width, rows = max(len(children) for children in shape.children), len(shape)
        if width > len(vocabulary.head):
            raise InputError(
                f"the tree of drafted tokens has {width} side by side, only "
                f"{len(vocabulary.head)} can be drafted; raise evaluate.draft_vocabulary or take a "
                "narrower tree"
            )
        head = verifier.head
        self.cache = KeyValues(draft.config, capacity + rows, head.dtype, head.device)

    def propose(self, features: Tensor, next_tokens: list[int]) -> Proposal:
        """A tree of drafted tokens.

        Args:
            features: [T, H], the verifier's, of positions the draft has not read.
            next_tokens: the T tokens that follow those positions.
        """
        tokens = torch.tensor(next_tokens, device=features.device)
        start = self.cache.length
        positions = torch.arange(start, start + len(tokens), device=features.device)
        seen = torch.ones(len(tokens), len(tokens), dtype=torch.bool).tril()
        hidden = self._step(features, tokens, positions, seen)[-1:]  # [1, H], after the root
        read = self.cache.length
        self.root_position = read - 1
        draft_tree = self._grown if isinstance(self.shape, Growth) else self._static
        proposal = draft_tree(hidden, tokens[-1:])
        self.cache.keep([], self.cache.length - read)
        return proposal

    def _static(self, hidden: Tensor, root: Tensor) -> Proposal:
        below, tokens, probabilities = root, [root], []
        drawn = self.choice.sampling is not None
        for depth, level in enumerate(self.shape.levels):
            if depth:  # from here on the draft feeds on its own features
                hidden = self._deeper(hidden[level.parents], below[level.picked], depth, level.seen)
            logits = product(hidden, self.vocabulary.head)  # [R, S]
            if drawn:
                q = self.choice.sampling.probabilities(logits)
                uniforms = self.choice.uniforms(len(q), level.width, q.device)
                candidates = draw_distinct(q, uniforms)
                probabilities += q
            elif level.width == 1:
                candidates = likeliest(logits)[:, None]
            else:
                candidates = logits.topk(level.width).indices  # [R, width]
            below = self.vocabulary.token_ids[candidates.flatten()[level.children]]
            tokens.append(below)
        return Proposal(self.shape, torch.cat(tokens).tolist(), probabilities if drawn else None)

    def _grown(self, hidden: Tensor, root: Tensor) -> Proposal:
        """EAGLE-2's tree: the likeliest paths are drafted on, the likeliest rows of all stay."""
        count = self.shape.top_k
        best = self._log_probabilities(hidden).topk(count)  # [1, k]
        tokens, scores = [best.indices[0]], [best.values[0]]  # each level's, flat
        parents = [torch.zeros_like(best.indices[0])]  # rows, numbered as drafted; the root is 0
        chosen, first_row = torch.arange(count, device=hidden.device), 1
        hidden = hidden.expand(count, -1)
        itself = seen = torch.eye(count, dtype=torch.bool)
        for depth in range(1, self.shape.depth):
            below = self.vocabulary.token_ids[tokens[-1][chosen]]
            hidden = self._deeper(hidden, below, depth, seen)  # [k, H]
            paths = scores[-1][chosen][:, None] + self._log_probabilities(hidden)
            best = paths.topk(count)  # [k, k]
            parents.append((first_row + chosen).repeat_interleave(count))
            first_row += len(tokens[-1])
            tokens.append(best.indices.flatten())
            scores.append(best.values.flatten())
            chosen = scores[-1].topk(count).indices
            hidden = hidden[chosen // count]
            seen = torch.cat([seen[(chosen // count).cpu()], itself], dim=1)
        # a row is never likelier than its parent, which is drafted first: stable, so it stays too
        likeliest = torch.cat(scores).sort(descending=True, stable=True).indices
        stay = likeliest[: self.shape.tokens - 1].sort().values
        numbers = {row: number for number, row in enumerate([0, *(stay + 1).tolist()])}
        tree = Tree([-1, *(numbers[row] for row in torch.cat(parents)[stay].tolist())])
        drafted = self.vocabulary.token_ids[torch.cat(tokens)[stay]]
        return Proposal(tree, torch.cat([root, drafted]).tolist(), None)

    def _log_probabilities(self, hidden: Tensor) -> Tensor:
        logits = product(hidden, self.vocabulary.head)  # [R, S]
        return logits.log_softmax(-1, dtype=torch.float32)

    def _deeper(self, hidden: Tensor, tokens: Tensor, depth: int, seen: Tensor) -> Tensor:
        """One level down: all its rows [R] stand `depth` behind the last true pair."""
        position = self.root_position + depth
        positions = torch.full((len(tokens),), position, device=tokens.device)
        return self._step(hidden, tokens, positions, seen)

    def _step(self, features: Tensor, tokens: Tensor, positions: Tensor, seen: Tensor) -> Tensor:
        """Predicted features [T, H].

        Args:
            seen: which of the newest rows each row sees, bool [T, newest].
        """
        mask = None
        if not seen.all():
            before = self.cache.length + len(tokens) - seen.shape[1]
            mask = _with_everything_before(seen, before, tokens.device)

        def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            key, value = self.cache.update(key, value, 0)
            return functional.scaled_dot_product_attention(
                query, key, value, attn_mask=mask, enable_gqa=True
            )

        return self.draft(features, self.verifier.embedding[tokens], positions, attend)


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


def likeliest(logits: Tensor) -> Tensor:
    """The most likely token of each row, int64 [T], from logits [T, V]."""
    return logits.max(-1).indices  # in bfloat16 several times as fast as argmax


def _with_everything_before(seen: Tensor, before: int, device: torch.device) -> Tensor:
    """The attention mask of rows that see all tokens before them: bool [1, 1, T, before + T]."""
    return functional.pad(seen.to(device), (before, 0), value=True)[None, None]


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
