"""How tokens are chosen from logits: the most likely ones, or drawn at random.

Shapes: B independent draws, m tokens of one draw, T rows, V vocabulary.
"""

from dataclasses import dataclass
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
    """The distribution that tokens are drawn from. The verifier's p is the one AFTER warping."""

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


@dataclass
class Sampler:
    """Chooses tokens: the most likely ones, or random ones from its own source of numbers."""

    sampling: Sampling | None = None
    """None: temperature 0, the most likely token."""
    generator: torch.Generator | None = None
    """Source of random numbers, on the CPU; None takes torch's global one."""

    def choose(self, logits: Tensor, uniforms: Tensor) -> Tensor:
        """Tokens [T] from logits [T, V].

        Args:
            uniforms: as of `draw` [T]; at temperature 0 nothing is drawn.
        """
        if self.sampling is None:
            return most_likely(logits)
        return draw(self.sampling.probabilities(logits), uniforms)

    def fill(self, uniforms: Tensor) -> None:
        """Put random numbers in [0, 1) into a float64 tensor; at temperature 0 none are needed."""
        if self.sampling is not None:
            uniforms.copy_(torch.rand(len(uniforms), generator=self.generator, dtype=torch.float64))


GREEDY = Sampler()


def most_likely(logits: Tensor) -> Tensor:
    """The most likely token of each row, int64 [T], from logits [T, V]."""
    return logits.max(-1).indices  # in bfloat16 several times as fast as argmax


def draw(weights: Tensor, uniforms: Tensor) -> Tensor:
    """Tokens [B] with probabilities proportional to weights [B, V].

    Args:
        uniforms: in [0, 1) [B]; the token is where the cumulative sum of the weights passes it.
    """
    sums = weights.double().cumsum(-1)
    drawn = torch.searchsorted(sums, (uniforms.double() * sums[:, -1])[:, None], right=True)[:, 0]
    return drawn.clamp(max=weights.shape[1] - 1)


def draw_distinct(weights: Tensor, uniforms: Tensor) -> Tensor:
    """Tokens [B, m], drawn one after the other by `draw`, without replacement.

    Where fewer than m tokens have weight, the remaining places hold the last token of the
    vocabulary; `accept_siblings` never accepts it there.

    Args:
        weights: [B, V].
        uniforms: in [0, 1) [B, m].
    """
    weights = weights.double()
    drawn = []
    for column in uniforms.T:
        drawn.append(draw(weights, column))
        weights = weights.scatter(1, drawn[-1][:, None], 0.0)
    return torch.stack(drawn, dim=1)
