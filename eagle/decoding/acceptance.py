"""Acceptance rules: which drafted tokens the verifier accepts.

They run on the device without a look at the numbers, so that a step has one shape whatever it
accepts.

Shapes: B independent draws, T rows of a tree (the root and the drafted tokens), W most children of
a row, m siblings, V vocabulary.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from eagle.decoding.sampler import draw
from eagle.decoding.tree import TreeTensors

Distributions = Callable[[Tensor], Tensor]
"""The distribution of the token after a row of the tree: probabilities [B, V] for rows [B]."""


def accept_greedy(tree: TreeTensors, tokens: Tensor, most_likely: Tensor) -> Tensor:
    """The row of the last accepted token at temperature 0, int64 [1]; the root's row is 0.

    A drafted token is accepted when its parent is and the token is the verifier's most likely one
    after that parent, so the text is what the verifier alone would write. Siblings differ, so the
    accepted rows are one path.

    Args:
        tokens: [T], of the tree's rows.
        most_likely: [T], the verifier's most likely token after each row.
    """
    agree = (tokens == most_likely[tree.parents]) | (tree.depths == 0)
    accepted = (agree | ~tree.seen).all(1)  # the row and all rows above it
    return (accepted * (tree.depths + 1)).argmax()[None]


def accept_sampled(
    tree: TreeTensors,
    tokens: Tensor,
    draft: Distributions | None,
    verifier: Distributions,
    uniforms: Tensor,
) -> tuple[Tensor, Tensor]:
    """Speculative sampling down a tree: the text has the verifier's distribution.

    `accept_siblings` decides among the children of the root, then among those of the accepted
    child, until it accepts none.

    Args:
        tokens: [B, T], of the tree's rows.
        draft: q, from which each row's children were drawn without replacement; None when they
            are the most likely tokens.
        verifier: p.
        uniforms: in [0, 1) [B, T]: a drafted row's number decides about that row, the root's
            number draws the token after the last accepted one.

    Returns:
        The row of the last accepted token [B], and the verifier's token after it [B].
    """
    last = torch.zeros(len(tokens), dtype=torch.int64, device=tokens.device)
    going = torch.ones_like(last, dtype=torch.bool)
    depth, width = tree.paths.shape[1] - 1, tree.children.shape[1]
    p = torch.zeros(1, 1, dtype=torch.float64, device=tokens.device)
    for _ in range(depth + 1):  # in the last one no row has children
        children = tree.children[last]  # [B, W]
        at = children.clamp(min=0)
        accepted, residual = accept_siblings(
            torch.where(children >= 0, tokens.gather(1, at), -1),
            None if draft is None else draft(last),
            verifier(last),
            uniforms.gather(1, at),
        )
        p = torch.where(going[:, None], residual, p)
        going = going & (accepted < width)
        last = torch.where(going, at.gather(1, accepted.clamp(max=width - 1)[:, None])[:, 0], last)
        # on a CPU a look at the numbers costs nothing, and mostly spares the deeper levels
        if last.device.type == "cpu" and not going.any():
            break
    return last, draw(p, uniforms[:, 0])


def accept_siblings(
    candidates: Tensor, draft: Tensor | None, verifier: Tensor, uniforms: Tensor
) -> tuple[Tensor, Tensor]:
    """Multi-round speculative sampling among alternatives for one token (paper, appendix A.2).

    Candidate x, drawn from q, is accepted with probability min(1, p(x) / q(x)). If it is rejected,
    p becomes the residual max(0, p - q), normalised, q loses x and is normalised again, and the
    next candidate is tried. A candidate that was not drawn is a point mass: it is accepted with
    probability p(x), and the residual is p without x. With one drawn candidate this is the rule
    for chains (arXiv 2211.17192, 2.3).

    Args:
        candidates: [B, m]; -1 stands for none, after all others.
        draft: q [B, V], from which the candidates were drawn without replacement, in order; None
            for point masses, which must differ.
        verifier: p [B, V].
        uniforms: in [0, 1) [B, m].

    Returns:
        The index of the accepted candidate, m when none is [B], and the distribution of the token
        to draw when none is: the last residual [B, V].
    """
    count = candidates.shape[1]
    tiny = torch.finfo(torch.float64).tiny
    p = verifier.double()
    p = p / p.sum(1, keepdim=True)
    q = None if draft is None else draft.double()
    accepted = torch.full((len(p),), count, device=p.device)
    for number, candidate in enumerate(candidates.T):
        at = candidate.clamp(min=0)[:, None]
        if q is None:
            chance = p.gather(1, at)[:, 0]
            residual = p.scatter(1, at, 0.0)
        else:
            # where q has no token left, the candidate is never accepted and p stays as it is
            mass = q.sum(1, keepdim=True)
            drawn_from = q / mass.clamp(min=tiny)
            chance = p.gather(1, at)[:, 0] / drawn_from.gather(1, at)[:, 0]
            chance = torch.where(mass[:, 0] > 0, chance, 0.0)
            residual = (p - drawn_from).clamp(min=0)
            q = q.scatter(1, at, 0.0)
        tried = (accepted == count) & (candidate >= 0)
        accepts = tried & (uniforms[:, number] < chance)
        accepted = torch.where(accepts, number, accepted)
        residual = residual / residual.sum(1, keepdim=True).clamp(min=tiny)
        p = torch.where((tried & ~accepts)[:, None], residual, p)
    return accepted, p
