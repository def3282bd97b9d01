"""Which drafted tokens the verifier lets stand.

Shapes: B independent draws, T rows of a tree (the root and the drafted tokens), m siblings, V
vocabulary.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from eagle.decoding.tree import Tree

Distributions = Callable[[int], Tensor]
"""What may follow a row of the tree: probabilities [B, V]. Asked only for rows that were reached,
so nothing is computed for the others."""


class Sampling(NamedTuple):
    """How a token is drawn from logits; the verifier's distribution p is the one AFTER this."""

    temperature: float
    """Above 0."""
    top_p: float = 1.0
    top_k: int | None = None

    def probabilities(self, logits: Tensor) -> Tensor:
        """Float32 [..., V] from logits [..., V], by transformers' own warpers in its order."""
        warpers = LogitsProcessorList([TemperatureLogitsWarper(self.temperature)])
        if self.top_k is not None:
            warpers.append(TopKLogitsWarper(self.top_k))
        if self.top_p < 1:
            warpers.append(TopPLogitsWarper(self.top_p))
        rows = logits.flatten(0, -2).float()
        return warpers(None, rows).softmax(-1).view(logits.shape)


def accept_greedy(tree: Tree, tokens: list[int], chosen: list[int]) -> int:
    """The row of the last token that stands at temperature 0; the root's is 0.

    Args:
        tokens: [T], of the tree's rows.
        chosen: [T], the verifier's most likely token after each row; the last standing row's comes
            on top.

    A drafted token stands when its parent does and the verifier would have chosen it there, so
    the text is the verifier's own.
    """
    row = 0
    while True:
        agreeing = [child for child in tree.children[row] if tokens[child] == chosen[row]]
        if not agreeing:
            return row
        row = agreeing[0]


def accept_sampled(
    tree: Tree,
    tokens: Tensor,
    draft: Distributions | None,
    verifier: Distributions,
    uniforms: Tensor,
) -> tuple[Tensor, Tensor]:
    """Speculative sampling down a tree: the text has the verifier's distribution.

    From the root on, `accept_siblings` decides among a row's children, until none stands.

    Args:
        tokens: [B, T], of the tree's rows.
        draft: q, from which each row's children were drawn without replacement; None when they
            were chosen, not drawn.
        verifier: p.
        uniforms: in [0, 1) [B, T]: a drafted row's decides about it, the root's draws the token
            on top.

    Returns:
        The row of the last token that stands [B], and the token that comes on top [B].
    """
    stands = torch.zeros(len(tokens), dtype=torch.int64, device=tokens.device)
    on_top = torch.empty_like(stands)
    for row, children in enumerate(tree.children):
        here = (stands == row).nonzero()[:, 0]  # parents come before their children
        if not len(here):
            continue
        accepted, instead = accept_siblings(
            tokens[here][:, children],
            draft(row)[here] if draft and children else None,
            verifier(row)[here],
            uniforms[here][:, children],
        )
        on_top[here] = draw(instead, uniforms[here, 0])
        below = torch.tensor([*children, row], device=tokens.device)
        stands[here] = below[accepted]
    return stands, on_top


def accept_siblings(
    candidates: Tensor, draft: Tensor | None, verifier: Tensor, uniforms: Tensor
) -> tuple[Tensor, Tensor]:
    """Multi-round speculative sampling among alternatives for one token (paper, appendix A.2).

    Candidate x, drawn from q, stands with probability min(1, p(x) / q(x)). When it does not, p
    becomes the residual max(0, p - q), normalised, q loses x and is normalised again, and the
    next candidate is tried. A candidate that was chosen, not drawn, is a point mass: it stands
    with probability p(x), and the residual is p without x. With one candidate drawn that is the
    rule for chains (arXiv 2211.17192, 2.3).

    Args:
        candidates: [B, m]; m may be 0.
        draft: q [B, V], from which the candidates were drawn without replacement, in order; None
            for point masses, which must differ.
        verifier: p [B, V].
        uniforms: in [0, 1) [B, m].

    Returns:
        The number of the candidate that stands, m when none does [B], and the distribution [B, V]
        of the token that comes instead of them all.
    """
    count = candidates.shape[1]
    tiny = torch.finfo(torch.float64).tiny
    p = verifier.double()
    p = p / p.sum(1, keepdim=True)
    q = None if draft is None else draft.double()
    accepted = torch.full((len(p),), count, device=p.device)
    for number, candidate in enumerate(candidates.T):
        at = candidate[:, None]
        if q is None:
            chance = p.gather(1, at)[:, 0]
            residual = p.scatter(1, at, 0.0)
        else:
            # q that has no token left for this candidate lets it never stand and changes nothing
            mass = q.sum(1, keepdim=True)
            drawn_from = q / mass.clamp(min=tiny)
            chance = p.gather(1, at)[:, 0] / drawn_from.gather(1, at)[:, 0]
            chance = torch.where(mass[:, 0] > 0, chance, 0.0)
            residual = (p - drawn_from).clamp(min=0)
            q = q.scatter(1, at, 0.0)
        rejected = accepted == count
        stands = rejected & (uniforms[:, number] < chance)
        accepted[stands] = number
        residual = residual / residual.sum(1, keepdim=True).clamp(min=tiny)
        p = torch.where((rejected & ~stands)[:, None], residual, p)
    return accepted, p


def draw(weights: Tensor, uniforms: Tensor) -> Tensor:
    """Tokens [B] with probabilities proportional to weights [B, V], by inverting their sum."""
    sums = weights.double().cumsum(-1)
    drawn = torch.searchsorted(sums, (uniforms.double() * sums[:, -1])[:, None], right=True)[:, 0]
    return drawn.clamp(max=weights.shape[1] - 1)


def draw_distinct(weights: Tensor, uniforms: Tensor) -> Tensor:
    """Tokens [B, m], one after the other by `draw`, none twice.

    Where fewer than m tokens have weight, the last token fills up; `accept_siblings` lets it not
    stand.
    """
    weights = weights.double()
    drawn = []
    for column in uniforms.T:
        drawn.append(draw(weights, column))
        weights = weights.scatter(1, drawn[-1][:, None], 0.0)
    return torch.stack(drawn, dim=1)
