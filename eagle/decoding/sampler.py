"""How tokens are chosen from logits."""

from dataclasses import dataclass

import torch
from torch import Tensor

from eagle.decoding.acceptance import Sampling, draw


@dataclass
class Sampler:
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


GREEDY = Sampler()


def likeliest(logits: Tensor) -> Tensor:
    """The most likely token of each row, int64 [T], from logits [T, V]."""
    return logits.max(-1).indices  # in bfloat16 several times as fast as argmax
