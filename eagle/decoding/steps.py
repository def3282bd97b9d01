"""One step of vanilla and of speculative decoding, all of it on the device.

A step reads and writes tensors that stay where they are: what the next step needs, the caches, and
one small tensor for the host. Given the same number of pairs and a fixed extent, every step has the
same shapes, and nothing in it waits for a number. So a CUDA graph can be captured of it.

Shapes: P prompt tokens, T rows of a tree, D depth, H hidden, V vocabulary; batch 1.
"""

import torch
from torch import Tensor

from eagle.decoding.acceptance import accept_greedy, accept_sampled
from eagle.decoding.kv_cache import Extent
from eagle.decoding.sampler import Sampler, most_likely
from eagle.decoding.sessions import DraftSession, Proposal, VerifierSession
from eagle.decoding.tree import Tree


class VanillaStep:
    """The verifier reads one token and chooses the next."""

    def __init__(self, session: VerifierSession, sampler: Sampler):
        device = session.verifier.head.device
        self.session, self.sampler = session, sampler
        self.root = Tree.chain(0).tensors(device)
        self.token = torch.zeros(1, dtype=torch.int64, device=device)
        """The last token of the text, which the verifier has not read."""
        self.uniforms = torch.zeros(1, dtype=torch.float64, device=device)

    def begin(self, features: Tensor) -> Tensor:
        """The first token [1] after a prompt's features [P, H]."""
        self.sampler.fill(self.uniforms)
        logits = self.session.logits(features[-1:])
        return self.token.copy_(self.sampler.choose(logits, self.uniforms))

    def run(self, extent: Extent) -> Tensor:
        """The next token [1]."""
        features = self.session.step(self.token, self.root, extent)
        self.session.keep(None, 1)
        logits = self.session.logits(features)
        return self.token.copy_(self.sampler.choose(logits, self.uniforms))


class SpeculativeStep:
    """The draft proposes a tree, the verifier reads it and accepts a path of it."""

    def __init__(self, session: VerifierSession, drafting: DraftSession):
        head, shape = session.verifier.head, drafting.shape
        self.session, self.drafting, self.sampler = session, drafting, drafting.sampler
        self.is_chain = isinstance(shape, Tree) and shape.is_chain
        # the pairs (f_t, token t + 1) that the draft has not read yet, at most D + 1
        pairs = shape.depth + 1
        self.features = torch.zeros(pairs, head.shape[1], dtype=head.dtype, device=head.device)
        self.tokens = torch.zeros(pairs, dtype=torch.int64, device=head.device)
        self.count = torch.ones(1, dtype=torch.int64, device=head.device)
        """How many pairs there are; those behind them stand for nothing."""
        self.uniforms = torch.zeros(
            drafting.uniforms + shape.size, dtype=torch.float64, device=head.device
        )
        # a static tree has as many rows of q as rows with children
        if isinstance(shape, Tree):
            rows = [row for level in shape.levels for row in level.rows]
            self.rows_of_q = torch.zeros(shape.size, dtype=torch.int64)
            self.rows_of_q[rows] = torch.arange(len(rows))
            self.rows_of_q = self.rows_of_q.to(head.device)

    def begin(self, features: Tensor, prompt: Tensor, token: Tensor) -> None:
        """Begin a text with its prompt's features [P, H] and tokens [P], and the next token [1]."""
        self.drafting.begin(features[:-1], prompt[1:])
        self.features[:1] = features[-1:]
        self.tokens[:1] = token
        self.count.fill_(1)

    def draft(self, pairs: int, extent: Extent) -> Proposal:
        """Draft a tree after the first `pairs` pairs, of which `count` are real."""
        return self.drafting.propose(
            self.features[:pairs],
            self.tokens[:pairs],
            self.count,
            self.uniforms[: self.drafting.uniforms],
            extent,
        )

    def verify(self, proposal: Proposal, extent: Extent) -> Tensor:
        """Accept a path of the tree.

        Returns:
            For the host, int64 [D + 2]: the number of new tokens, and the new tokens: the accepted
            ones and the verifier's own after them. What follows those stands for nothing.
        """
        tree = proposal.tree
        features = self.session.step(proposal.tokens, tree, extent)  # [T, H]
        row, token = self._accept(proposal, self.session.logits(features))  # each [1]
        path, accepted = tree.paths[row][0], tree.depths[row]  # [D + 1], [1]
        self.count.copy_(accepted + 1)
        self.session.keep(None if self.is_chain else path, self.count[0])
        self.features.copy_(features[path])
        following = proposal.tokens[path].roll(-1)  # the token after each row of the path
        at_end = torch.arange(len(path), device=path.device) == accepted
        self.tokens.copy_(torch.where(at_end, token, following))
        return torch.cat([self.count, self.tokens])

    def _accept(self, proposal: Proposal, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The row of the last accepted token [1], and the verifier's token after it [1].

        Args:
            logits: [T, V], the verifier's.
        """
        tree, tokens, sampling = proposal.tree, proposal.tokens, self.sampler.sampling
        if sampling is None:
            best = most_likely(logits)
            row = accept_greedy(tree, tokens, best)
            return row, best[row]

        def p(row: Tensor) -> Tensor:
            return sampling.probabilities(logits[row])

        def q(row: Tensor) -> Tensor:
            drafted = proposal.probabilities[self.rows_of_q[row]]  # [1, S]
            everything = torch.zeros_like(logits[:1], dtype=drafted.dtype)
            return everything.index_copy(1, self.drafting.vocabulary.token_ids, drafted)

        return accept_sampled(
            tree,
            tokens[None],
            None if proposal.probabilities is None else q,
            p,
            self.uniforms[None, self.drafting.uniforms :],
        )
