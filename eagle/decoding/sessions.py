"""The verifier and the draft while they decode one text, each with its key-value cache.

Shapes: N tokens in the cache, T new tokens or rows of a tree, R rows of one level of it, H hidden,
S tokens that can be drafted, V vocabulary; batch 1.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from eagle.decoding.kv_cache import KeyValueCache
from eagle.decoding.sampler import Sampler, draw_distinct, most_likely
from eagle.decoding.tree import DynamicTree, Tree
from eagle.draft.draft import Draft
from eagle.draft.onednn_weights import linear
from eagle.draft.vocabulary import Vocabulary
from eagle.errors import InputError
from eagle.verifier.verifier import Verifier


class Proposal(NamedTuple):
    """A tree of drafted tokens for the verifier to check."""

    tree: Tree
    tokens: list[int]
    """[T], of the tree's rows; the root's is the last token of the text so far."""
    probabilities: list[Tensor] | None
    """q of the tree's rows that have children, in their order, each [S]; None where the tokens
    are the most likely ones, not drawn."""


class VerifierSession:
    """The verifier with a cache of all tokens that it has read.

    Args:
        capacity: tokens that the cache has room for, rows of a tree included.

    """

    def __init__(self, verifier: Verifier, capacity: int):
        self.verifier = verifier
        head = verifier.head
        self.cache = KeyValueCache(verifier.key_value_shapes, capacity, head.dtype, head.device)
        self.finite = torch.ones((), dtype=torch.bool, device=head.device)
        """Whether all logits so far were; on the device, which nobody waits for."""

    def step(self, token_ids: list[int], tree: Tree | None = None) -> Tensor:
        """Read the next tokens, which join the cache. Returns their features [T, H].

        Args:
            tree: says which of the new tokens each of them sees, besides all tokens before; None:
                a chain.
        """
        cached, new = self.cache.length, len(token_ids)
        device = self.verifier.head.device
        mask = positions = None
        if new > 1 and cached:
            tree = tree or Tree.chain(new - 1)
            positions = torch.tensor([tree.depths], device=device) + cached
            mask = self._masks(_attention_mask(tree.seen, cached, device), positions[0])
        output = self.verifier.decoder(
            input_ids=torch.tensor([token_ids], device=device),
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
        )
        return output.last_hidden_state[0]

    def _masks(self, seen: Tensor, positions: Tensor) -> Tensor | dict[str, Tensor]:
        """What the model takes as its attention mask: one, or one for each type of layer.

        Args:
            seen: bool [1, 1, T, N + T], without regard to windows.
            positions: of the T new tokens, int64 [T].
        """
        keys = torch.cat([torch.arange(self.cache.length, device=seen.device), positions])
        masks = {}
        for kind, window in self.verifier.windows.items():
            mask = seen
            if window is not None:
                mask = seen & (positions[:, None] - keys < window)
            if self.verifier.attn == "eager":  # its masks are added to the scores
                lowest = torch.finfo(self.verifier.head.dtype).min
                mask = torch.zeros_like(mask, dtype=self.verifier.head.dtype).masked_fill_(
                    ~mask, lowest
                )
            masks[kind] = mask
        return masks if len(masks) > 1 else masks.popitem()[1]

    def logits(self, features: Tensor) -> Tensor:
        """[T, V] from features [T, H]."""
        logits = self.verifier.model.get_output_embeddings()(features)
        self.finite &= logits.amax().isfinite()  # NaN and infinity come through a maximum
        return logits

    def check_finite(self) -> None:
        """Check all logits so far.

        Raises:
            InputError: some were not finite, so no token after them means anything.
        """
        if not self.finite:
            dtype = str(self.verifier.head.dtype).removeprefix("torch.")
            raise InputError(
                f"the verifier's logits are not finite in {dtype} (a text of {self.cache.length} "
                "tokens): every figure from them would be wrong. Decode in bfloat16 or float32 "
                "(evaluate.dtype)"
            )

    def keep(self, rows: list[int], newest: int) -> None:
        """Of the newest tokens, keep only some rows in the cache, given in ascending order."""
        self.cache.keep(rows, newest)


class DraftSession:
    """The draft with a cache of the pairs that it has read with TRUE features.

    Args:
        shape: of the trees to draft: the same in every step, or grown in each step.
        capacity: tokens of the whole text.

    Raises:
        InputError: the shape needs more different tokens than the vocabulary has.
    """

    def __init__(
        self,
        draft: Draft,
        verifier: Verifier,
        vocabulary: Vocabulary,
        sampler: Sampler,
        shape: Tree | DynamicTree,
        capacity: int,
    ):
        self.draft, self.verifier, self.vocabulary = draft, verifier, vocabulary
        self.sampler, self.shape = sampler, shape
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
        kept = (draft.config.num_key_value_heads, draft.config.head_dim)
        self.cache = KeyValueCache([(kept, kept)], capacity + rows, head.dtype, head.device)

    def propose(self, features: Tensor, next_tokens: list[int]) -> Proposal:
        """Draft a tree of tokens. Afterwards the cache has grown by the T true pairs alone.

        Args:
            features: [T, H], the verifier's, of positions that the draft has not read.
            next_tokens: the T tokens that follow those positions; the last one is the tree's root.
        """
        tokens = torch.tensor(next_tokens, device=features.device)
        start = self.cache.length
        positions = torch.arange(start, start + len(tokens), device=features.device)
        seen = torch.ones(len(tokens), len(tokens), dtype=torch.bool).tril()
        hidden = self._step(features, tokens, positions, seen)[-1:]  # [1, H], after the root
        true_pairs = self.cache.length
        self.root_position = true_pairs - 1
        draft_tree = (
            self._dynamic_tree if isinstance(self.shape, DynamicTree) else self._static_tree
        )
        proposal = draft_tree(hidden, tokens[-1:])
        self.cache.keep([], self.cache.length - true_pairs)
        return proposal

    def _static_tree(self, hidden: Tensor, root: Tensor) -> Proposal:
        """A tree of the given shape from the feature [1, H] and the token [1] of its root."""
        newest, tokens, probabilities = root, [root], []
        drawn = self.sampler.sampling is not None
        for depth, level in enumerate(self.shape.levels):
            if depth:  # from here on the draft reads its own features
                hidden = self._next_level(
                    hidden[level.parents], newest[level.picked], depth, level.seen
                )
            logits = linear(hidden, self.vocabulary.head)  # [R, S]
            if drawn:
                q = self.sampler.sampling.probabilities(logits)
                uniforms = self.sampler.uniforms(len(q), level.width, q.device)
                candidates = draw_distinct(q, uniforms)
                probabilities += q
            elif level.width == 1:
                candidates = most_likely(logits)[:, None]
            else:
                candidates = logits.topk(level.width).indices  # [R, width]
            newest = self.vocabulary.token_ids[candidates.flatten()[level.children]]
            tokens.append(newest)
        return Proposal(self.shape, torch.cat(tokens).tolist(), probabilities if drawn else None)

    def _dynamic_tree(self, hidden: Tensor, root: Tensor) -> Proposal:
        """A tree as EAGLE-2 grows it, from the feature [1, H] and the token [1] of its root.

        In each level the most likely paths are continued. Of all drafted rows the most likely ones
        become the tree.
        """
        count = self.shape.top_k
        best = self._log_probabilities(hidden).topk(count)  # [1, k]
        tokens, scores = [best.indices[0]], [best.values[0]]  # of each level, flat
        # rows are numbered in the order in which they are drafted, the root is 0
        parents = [torch.zeros_like(best.indices[0])]
        continued, first_row = torch.arange(count, device=hidden.device), 1
        hidden = hidden.expand(count, -1)
        itself = seen = torch.eye(count, dtype=torch.bool)
        for depth in range(1, self.shape.depth):
            newest = self.vocabulary.token_ids[tokens[-1][continued]]
            hidden = self._next_level(hidden, newest, depth, seen)  # [k, H]
            paths = scores[-1][continued][:, None] + self._log_probabilities(hidden)
            best = paths.topk(count)  # [k, k]
            parents.append((first_row + continued).repeat_interleave(count))
            first_row += len(tokens[-1])
            tokens.append(best.indices.flatten())
            scores.append(best.values.flatten())
            continued = scores[-1].topk(count).indices
            hidden = hidden[continued // count]
            seen = torch.cat([seen[(continued // count).cpu()], itself], dim=1)
        # A row is never more likely than its parent, which is drafted before it. The sort is
        # stable, so a row that is selected has its parent selected too.
        by_score = torch.cat(scores).sort(descending=True, stable=True).indices
        selected = by_score[: self.shape.tokens - 1].sort().values
        numbers = {row: number for number, row in enumerate([0, *(selected + 1).tolist()])}
        tree = Tree([-1, *(numbers[row] for row in torch.cat(parents)[selected].tolist())])
        drafted = self.vocabulary.token_ids[torch.cat(tokens)[selected]]
        return Proposal(tree, torch.cat([root, drafted]).tolist(), None)

    def _log_probabilities(self, hidden: Tensor) -> Tensor:
        """Float32 [R, S] from predicted features [R, H]."""
        logits = linear(hidden, self.vocabulary.head)
        return logits.log_softmax(-1, dtype=torch.float32)

    def _next_level(self, hidden: Tensor, tokens: Tensor, depth: int, seen: Tensor) -> Tensor:
        """Predicted features [R, H] of a level; its rows come `depth` positions after the root."""
        position = self.root_position + depth
        positions = torch.full((len(tokens),), position, device=tokens.device)
        return self._step(hidden, tokens, positions, seen)

    def _step(self, features: Tensor, tokens: Tensor, positions: Tensor, seen: Tensor) -> Tensor:
        """Predicted features [T, H] of pairs, which join the cache.

        Args:
            seen: which of the newest rows each row sees, bool [T, newest].
        """
        mask = None
        if not seen.all():
            before = self.cache.length + len(tokens) - seen.shape[1]
            mask = _attention_mask(seen, before, tokens.device)

        def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            key, value = self.cache.update(key, value, 0)
            return functional.scaled_dot_product_attention(
                query, key, value, attn_mask=mask, enable_gqa=True
            )

        return self.draft(features, self.verifier.embedding[tokens], positions, attend)


def _attention_mask(seen: Tensor, before: int, device: torch.device) -> Tensor:
    """Bool [1, 1, T, before + newest]: every row sees all tokens before, and the newest in `seen`.

    Args:
        seen: which of the newest rows each row sees, bool [T, newest].
        before: number of tokens before the newest ones.
    """
    return functional.pad(seen.to(device), (before, 0), value=True)[None, None]
