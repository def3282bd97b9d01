"""Which drafted tokens the verifier lets stand.

Shapes: B independent draws, k drafted tokens, V vocabulary.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)


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


def accept_greedy(drafted: Tensor, chosen: Tensor) -> int:
    """Number of drafted tokens accepted at temperature 0.

    Args:
        drafted: [k], the draft's tokens.
        chosen: [k + 1], the verifier's most likely token after the last verified token and after
            each drafted one. chosen[a], a the returned number, is the token that comes on top.

    A drafted token stands while it and all before it are what the verifier would have chosen, so
    the text is the verifier's own (Leviathan et al. 2023, arXiv 2211.17192, at temperature 0).
    """
    agrees = drafted == chosen[:-1]
    return int(agrees.long().cumprod(0).sum())


def accept_sampled(
    drafted: Tensor, draft: Tensor, verifier: Tensor, uniforms: Tensor
) -> tuple[Tensor, Tensor]:
    """Speculative sampling: the text has the verifier's distribution (arXiv 2211.17192, 2.3).

    Token x, drawn from q, stands with probability min(1, p(x) / q(x)); at the first that does not,
    the next token is drawn from the residual max(0, p - q), normalised; when all stand, from p.

    Args:
        drafted: [B, k], each drawn from its row of `draft`.
        draft: q [B, k, V].
        verifier: p [B, k + 1, V].
        uniforms: in [0, 1) [B, k + 1]; the last draws the token on top.

    Returns:
        The number of tokens that stand [B], and the token that comes on top [B].
    """
    count = drafted.shape[1]
    p = verifier[:, :count].gather(2, drafted[:, :, None])[..., 0]
    q = draft.gather(2, drafted[:, :, None])[..., 0]
    stands = uniforms[:, :count] * q < p
    accepted = stands.long().cumprod(1).sum(1)
    rows = torch.arange(len(drafted), device=drafted.device)
    # beyond the last drafted token nothing was drafted: q is 0 there, the residual is p
    drafts = torch.cat([draft, torch.zeros_like(draft[:, :1])], dim=1)
    residual = (verifier[rows, accepted] - drafts[rows, accepted]).clamp(min=0)
    return accepted, draw(residual, uniforms[:, count])


def draw(weights: Tensor, uniforms: Tensor) -> Tensor:
    """Tokens [B] with probabilities proportional to weights [B, V], by inverting their sum."""
    sums = weights.double().cumsum(-1)
    drawn = torch.searchsorted(sums, (uniforms.double() * sums[:, -1])[:, None], right=True)[:, 0]
    return drawn.clamp(max=weights.shape[1] - 1)
