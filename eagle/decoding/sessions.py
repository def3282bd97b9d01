"""The verifier and the draft while they decode one text, each with a cache of what it has read.

Shapes: T new tokens or rows of a tree, H hidden, S tokens that can be drafted, V vocabulary; batch 1.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from eagle.decoding.acceptance import draw_distinct
from eagle.decoding.kv_cache import KeyValues
from eagle.decoding.sampler import Sampler, likeliest
from eagle.decoding.tree import DynamicTree, Tree
from eagle.draft.draft import Draft
from eagle.draft.onednn_weights import product
from eagle.draft.vocabulary import Vocabulary
from eagle.errors import InputError
from eagle.verifier.verifier import Verifier


class Proposal(NamedTuple):
    """What the draft puts before the verifier."""

    tree: Tree
    tokens: list[int]
    """[T], of the tree's rows; the root's is the last token that stands."""
    probabilities: list[Tensor] | None
    """q of the tree's rows that have children, in their order, each [S]; None where the tokens
    were chosen, not drawn."""


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
        choice: Sampler,
        shape: Tree | DynamicTree,
        capacity: int,
    ):
        self.draft, self.verifier, self.vocabulary = draft, verifier, vocabulary
        self.choice, self.shape = choice, shape
        if isinstance(shape, DynamicTree):
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
        draft_tree = self._grown if isinstance(self.shape, DynamicTree) else self._static
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


def _with_everything_before(seen: Tensor, before: int, device: torch.device) -> Tensor:
    """The attention mask of rows that see all tokens before them: bool [1, 1, T, before + T]."""
    return functional.pad(seen.to(device), (before, 0), value=True)[None, None]
