"""The verifier and the draft while they decode texts, each with its key-value cache.

Nothing here looks at a number on the device but `VerifierSession.check_finite`, so that all of it
can be captured in a CUDA graph.

Shapes: N tokens in the cache, T new tokens or rows of a tree, R rows of one level of it, D depth,
K rows of the cache that are read, H hidden, S tokens that can be drafted, V vocabulary; batch 1.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from eagle.decoding.compiled_layers import CompiledLayers
from eagle.decoding.kv_cache import Extent, KeyValueCache, attention_mask
from eagle.decoding.sampler import Sampler, draw_distinct, most_likely
from eagle.decoding.tree import DynamicTree, Tree, TreeTensors, tree_tensors
from eagle.draft.draft import Draft, attend_masked
from eagle.draft.onednn_weights import linear
from eagle.draft.vocabulary import Vocabulary
from eagle.errors import InputError
from eagle.verifier.verifier import Verifier


class VerifierSession:
    """The verifier with a cache of all tokens that it has read; one text after the other.

    Args:
        capacity: tokens that the cache has room for, rows of a tree included.
        compiled: the verifier's layers for steps of a fixed extent; None: as they are.
    """

    def __init__(self, verifier: Verifier, capacity: int, compiled: CompiledLayers | None = None):
        self.verifier, self.compiled = verifier, compiled
        head = verifier.head
        self.cache = KeyValueCache(verifier.key_value_shapes, capacity, head.dtype, head.device)
        self.finite = torch.ones((), dtype=torch.bool, device=head.device)
        """Whether all logits of the text so far were; on the device, which nobody waits for."""
        self.masked = verifier.attn == "eager" or any(verifier.windows.values())
        """Whether even a token that sees all rows that are read needs a mask."""

    def begin(self, prompt: Tensor) -> Tensor:
        """Begin a text with its prompt [P]. Returns the prompt's features [P, H]."""
        self.cache.clear()
        self.finite.fill_(True)
        positions = torch.arange(len(prompt), device=prompt.device)
        self.cache.write_to(positions, len(prompt))
        features = self._forward(prompt, positions, None)  # causal, without a mask
        self.cache.keep(None, len(prompt))
        return features

    def step(self, tokens: Tensor, tree: TreeTensors, extent: Extent) -> Tensor:
        """Read tokens [T] behind the text. Returns their features [T, H].

        They join the text only by `keep`.

        Args:
            tree: says which of the new tokens each of them sees, besides the text.
        """
        length, new = self.cache.length, len(tokens)
        positions = length + tree.depths
        read = extent.rows(new)
        self.cache.write_to(length + torch.arange(new, device=tokens.device), read)
        mask = None
        if extent.fixed or new > 1 or self.masked:
            mask = self._masks(tree, positions, read)
        if extent.fixed and self.compiled is not None:
            with self.compiled.in_use(self.cache):
                return self._forward(tokens, positions, mask)
        return self._forward(tokens, positions, mask)

    def _forward(
        self, tokens: Tensor, positions: Tensor, mask: Tensor | dict[str, Tensor] | None
    ) -> Tensor:
        output = self.verifier.decoder(
            input_ids=tokens[None],
            attention_mask=mask,
            position_ids=positions[None],
            past_key_values=self.cache,
            use_cache=True,
        )
        return output.last_hidden_state[0]

    def _masks(self, tree: TreeTensors, positions: Tensor, read: int) -> Tensor | dict[str, Tensor]:
        """What the model takes as its attention mask: one, or one for each type of layer.

        Args:
            positions: of the new tokens, int64 [T].
        """
        length, rows = self.cache.length, torch.arange(read, device=positions.device)
        seen = attention_mask(tree.seen, length, read)  # [T, K]
        masks = {}
        for kind, window in self.verifier.windows.items():
            mask = seen
            if window is not None:
                newest = (rows - length).clamp(min=0, max=len(positions) - 1)
                of_keys = torch.where(rows < length, rows, positions[newest])  # positions [K]
                mask = seen & (positions[:, None] - of_keys < window)
            if self.verifier.attn == "eager":  # its masks are added to the scores
                lowest = torch.finfo(self.verifier.head.dtype).min
                mask = torch.zeros_like(mask, dtype=self.verifier.head.dtype).masked_fill_(
                    ~mask, lowest
                )
            masks[kind] = mask[None, None]
        return masks if len(masks) > 1 else masks.popitem()[1]

    def logits(self, features: Tensor) -> Tensor:
        """[T, V] from features [T, H]."""
        logits = self.verifier.model.get_output_embeddings()(features)
        self.finite &= logits.amax().isfinite()  # NaN and infinity come through a maximum
        return logits

    def keep(self, rows: Tensor | None, count: Tensor | int) -> None:
        """Let some of the tokens of the last step join the text (`KeyValueCache.keep`)."""
        self.cache.keep(rows, count)

    def check_finite(self) -> None:
        """Check all logits so far.

        Raises:
            InputError: some were not finite, so no token after them means anything.
        """
        if not self.finite:
            dtype = str(self.verifier.head.dtype).removeprefix("torch.")
            raise InputError(
                f"the verifier's logits are not finite in {dtype} (a text of "
                f"{int(self.cache.length)} tokens): every figure from them would be wrong. Decode "
                "in bfloat16 or float32 (evaluate.dtype)"
            )


class Proposal(NamedTuple):
    """A tree of drafted tokens for the verifier to check."""

    tree: TreeTensors
    tokens: Tensor
    """int64 [T], of the tree's rows; the root's is the last token of the text so far."""
    probabilities: Tensor | None
    """q of the tree's rows that have children, in their order [rows, S]; None where the tokens are
    the most likely ones, not drawn."""


class DraftSession:
    """The draft with a cache of the pairs that it has read with TRUE features.

    Args:
        shape: of the trees to draft: the same in every step, or grown in each step.
        cache: of one layer, with room for the text and what is drafted (`rows`).

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
        cache: KeyValueCache,
    ):
        self.draft, self.verifier, self.vocabulary = draft, verifier, vocabulary
        self.sampler, self.shape, self.cache = sampler, shape, cache
        self.uniforms = 0
        """How many random numbers it takes to draft a tree."""
        if shape.width > len(vocabulary.head):
            raise InputError(
                f"the tree of drafted tokens has {shape.width} side by side, only "
                f"{len(vocabulary.head)} can be drafted; raise evaluate.draft_vocabulary or take a "
                "narrower tree"
            )
        if isinstance(shape, Tree):  # on the device, because a graph cannot copy to it
            device = verifier.head.device
            self.tree = shape.tensors(device)
            self.levels = [level.to(device) for level in shape.levels]
            # of the rows behind the text: the root is part of it
            self.seen = [level.seen[:, 1:] for level in self.levels]
            self.sees_all = [bool(level.seen.all()) for level in shape.levels]
            self.uniforms = sum(len(level.rows) * level.width for level in self.levels)

    @staticmethod
    def new_cache(draft: Draft, head: Tensor, capacity: int) -> KeyValueCache:
        """A cache for a draft beside a verifier with this head."""
        kept = (draft.config.num_key_value_heads, draft.config.head_dim)
        return KeyValueCache([(kept, kept)], capacity, head.dtype, head.device)

    @staticmethod
    def rows(shape: Tree | DynamicTree) -> int:
        """Rows of the cache, besides the text's, that drafting a tree takes."""
        if isinstance(shape, Tree):
            return shape.size + shape.depth
        return shape.depth * (shape.top_k + 1)

    def begin(self, features: Tensor, next_tokens: Tensor) -> None:
        """Begin a text with the pairs of its prompt, as of `propose`; there may be none."""
        self.cache.clear()
        if len(next_tokens):
            self._read(features, next_tokens, Extent(0))
            self.cache.keep(None, len(next_tokens))

    def propose(
        self, features: Tensor, next_tokens: Tensor, count: Tensor, uniforms: Tensor, extent: Extent
    ) -> Proposal:
        """Draft a tree of tokens. Afterwards the cache has grown by the true pairs alone.

        Args:
            features: [N, H], the verifier's, of positions that the draft has not read.
            next_tokens: [N], the tokens that follow those positions.
            count: how many of these pairs there are, int64 [1]; the others stand for nothing. The
                last one's token is the tree's root.
            uniforms: random numbers in [0, 1) [self.uniforms].
            extent: of the text without these pairs; if it is not fixed, there are N of them.
        """
        hidden = self._read(features, next_tokens, extent)  # [N, H]
        extent = extent._replace(length=extent.length + len(next_tokens))
        self.cache.keep(None, count[0])
        hidden, root = hidden[count - 1], next_tokens[count - 1]
        if isinstance(self.shape, Tree):
            return self._static_tree(hidden, root, uniforms, extent)
        return self._dynamic_tree(hidden, root, extent)

    def _static_tree(
        self, hidden: Tensor, root: Tensor, uniforms: Tensor, extent: Extent
    ) -> Proposal:
        """A tree of the given shape from the feature [1, H] and the token [1] of its root."""
        newest, tokens, probabilities = root, [root], []
        sampling = self.sampler.sampling
        for depth, level in enumerate(self.levels):
            if depth:  # from here on the draft reads its own features
                hidden = self._next_level(
                    hidden[level.parents],
                    newest[level.picked],
                    depth,
                    self.seen[depth],
                    self.sees_all[depth],
                    extent,
                )
            logits = linear(hidden, self.vocabulary.head)  # [R, S]
            if sampling is not None:
                q = sampling.probabilities(logits)
                count = len(q) * level.width
                candidates = draw_distinct(q, uniforms[:count].view(len(q), level.width))
                uniforms = uniforms[count:]
                probabilities.append(q)
            elif level.width == 1:
                candidates = most_likely(logits)[:, None]
            else:
                candidates = logits.topk(level.width).indices  # [R, width]
            newest = self.vocabulary.token_ids[candidates.flatten()[level.children]]
            tokens.append(newest)
        return Proposal(
            self.tree, torch.cat(tokens), None if sampling is None else torch.cat(probabilities)
        )

    def _dynamic_tree(self, hidden: Tensor, root: Tensor, extent: Extent) -> Proposal:
        """A tree as EAGLE-2 grows it, from the feature [1, H] and the token [1] of its root.

        In each level the most likely paths are continued. Of all drafted rows the most likely ones
        become the tree.
        """
        count = self.shape.top_k
        best = self._log_probabilities(hidden).topk(count)  # [1, k]
        tokens, scores = [best.indices[0]], [best.values[0]]  # of each level, flat
        # rows are numbered in the order in which they are drafted, the root is 0
        parents = [torch.zeros_like(best.indices[0])]
        depths = [torch.ones_like(best.indices[0])]
        continued, first_row = torch.arange(count, device=hidden.device), 1
        hidden = hidden.expand(count, -1)
        itself = seen = torch.eye(count, dtype=torch.bool, device=hidden.device)
        for depth in range(1, self.shape.depth):
            newest = self.vocabulary.token_ids[tokens[-1][continued]]
            hidden = self._next_level(hidden, newest, depth, seen, False, extent)  # [k, H]
            paths = scores[-1][continued][:, None] + self._log_probabilities(hidden)
            best = paths.topk(count)  # [k, k]
            parents.append((first_row + continued)[:, None].expand(-1, count).flatten())
            first_row += len(tokens[-1])
            tokens.append(best.indices.flatten())
            scores.append(best.values.flatten())
            depths.append(torch.full_like(tokens[-1], depth + 1))
            continued = scores[-1].topk(count).indices
            hidden = hidden[continued // count]
            seen = torch.cat([seen[continued // count], itself], dim=1)
        # A row is never more likely than its parent, which is drafted before it. The sort is
        # stable, so a row that is selected has its parent selected too.
        by_score = torch.cat(scores).sort(descending=True, stable=True).indices
        selected = by_score[: self.shape.size - 1].sort().values
        # a row's number in the tree, by its number among the drafted ones
        numbers = torch.zeros(1 + self.shape.drafted, dtype=torch.int64, device=hidden.device)
        in_order = torch.arange(1, self.shape.size, device=hidden.device)
        numbers = numbers.scatter(0, selected + 1, in_order)
        at_root = torch.zeros_like(root)
        tree = tree_tensors(
            torch.cat([at_root, numbers[torch.cat(parents)[selected]]]),
            torch.cat([at_root, torch.cat(depths)[selected]]),
            self.shape.depth,
            self.shape.width,
        )
        drafted = self.vocabulary.token_ids[torch.cat(tokens)[selected]]
        return Proposal(tree, torch.cat([root, drafted]), None)

    def _log_probabilities(self, hidden: Tensor) -> Tensor:
        """Float32 [R, S] from predicted features [R, H]."""
        logits = linear(hidden, self.vocabulary.head)
        return logits.log_softmax(-1, dtype=torch.float32)

    def _read(self, features: Tensor, tokens: Tensor, extent: Extent) -> Tensor:
        """Predicted features [N, H] of true pairs, each of which sees those before it."""
        rows = torch.arange(len(tokens), device=tokens.device)
        seen = rows[:, None] >= rows
        return self._step(
            features, tokens, self.cache.length + rows, rows, seen, len(rows) == 1, extent
        )

    def _next_level(
        self,
        hidden: Tensor,
        tokens: Tensor,
        depth: int,
        seen: Tensor,
        sees_all: bool,
        extent: Extent,
    ) -> Tensor:
        """Predicted features [R, H] of a level; its rows come `depth` positions after the root.

        Args:
            seen: which rows of the levels so far, behind the text, each row sees: bool [R, those].
        """
        positions = (self.cache.length + (depth - 1)).expand(len(tokens))
        end = seen.shape[1]
        rows = torch.arange(end - len(tokens), end, device=tokens.device)
        return self._step(hidden, tokens, positions, rows, seen, sees_all, extent)

    def _step(
        self,
        features: Tensor,
        tokens: Tensor,
        positions: Tensor,
        rows: Tensor,
        seen: Tensor,
        sees_all: bool,
        extent: Extent,
    ) -> Tensor:
        """Predicted features [T, H] of pairs that are written behind the text.

        Args:
            rows: where behind the text, int64 [T].
            seen: which of the rows behind the text each row sees, bool [T, those].
            sees_all: whether all of them do, as the host knows it.
        """
        length = self.cache.length
        read = extent.rows(seen.shape[1])
        self.cache.write_to(length + rows, read)
        mask = None
        if extent.fixed or not sees_all:
            mask = attention_mask(seen, length, read)[None, None]

        def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return attend_masked(query, *self.cache.update(key, value, 0), mask)

        return self.draft(features, self.verifier.embedding[tokens], positions, attend)
