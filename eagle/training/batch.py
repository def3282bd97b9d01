"""The documents of one micro-step side by side, with all that their loss needs.

Shapes: T pairs of all documents and of the padding behind them, M counted pairs, H hidden. Pair t
is the feature f_t and token t + 1; its target is f_{t+1}.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import InitVar, dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from eagle.config import TrainConfig
from eagle.errors import InputError
from eagle.tokens.token_set import TokenSet
from eagle.training.features import Features
from eagle.training.loss import ROUND, Teacher
from eagle.verifier.attention import documents_bounds


@dataclass
class Split:
    """Training or validation documents with their features and counted positions."""

    tokens: TokenSet
    features: Features
    counted: list[Tensor]
    """For each document of L tokens, bool [L - 1]: which (input, target) pairs count."""

    def __post_init__(self) -> None:
        self._counts = [int(positions.sum()) for positions in self.counted]

    @classmethod
    def make(
        cls, tokens: TokenSet, features: Features, alignment: str, stop_token_ids: list[int]
    ) -> "Split":
        """Find the counted positions (`TokenSet.counted`).

        Raises:
            InputError: no position counts.
        """
        counted = [tokens.counted(d, alignment, stop_token_ids) for d in range(len(tokens))]
        if not any(positions.any() for positions in counted):
            raise InputError(
                f"none of {len(tokens)} documents has a position that counts with mask_alignment "
                f"= {alignment}: check the data's replies and the template's generation markers"
            )
        return cls(tokens, features, counted)

    def count_positions(self, documents: Sequence[int]) -> int:
        """The number of counted positions in some documents."""
        return sum(self._counts[document] for document in documents)

    def batch(self, documents: Sequence[int], config: TrainConfig, epoch: int | None) -> "Batch":
        """The pairs of `documents`, with noise on the inputs unless `epoch` is None.

        One more document of zeros, in which no position counts, pads the pairs to a multiple of
        ROUND: with few shapes a CPU builds few kernels.
        """
        chosen = [self.counted[document].nonzero()[:, 0] for document in documents]
        # pair t has its target at position t + 1
        features, teacher = self.features.of(list(documents), [at + 1 for at in chosen])
        device = features.device
        lengths = [self.tokens.length(document) - 1 for document in documents]
        firsts = torch.tensor([0, *lengths]).cumsum(0)[:-1]
        # the last feature of a document is a target only
        inputs = [part[:-1].float() for part in features.split([n + 1 for n in lengths])]
        if epoch is not None:
            inputs = [
                states + input_noise(states, config, epoch, document)
                for states, document in zip(inputs, documents, strict=True)
            ]
        spans = [self.tokens.span(document) for document in documents]
        next_tokens = [self.tokens.token_ids[span][1:] for span in spans]
        counted = [at + first for at, first in zip(chosen, firsts, strict=True)]
        # each document before this one has one more feature than pairs
        targets = torch.cat([at + number + 1 for number, at in enumerate(counted)])
        padding = -sum(lengths) % ROUND
        if padding:
            inputs.append(features.new_zeros(padding, features.shape[1], dtype=torch.float32))
            next_tokens.append(torch.zeros(padding, dtype=torch.int32))
            lengths.append(padding)
        return Batch(
            torch.cat(inputs),
            torch.cat(next_tokens).long().to(device, non_blocking=True),
            features[targets.to(device, non_blocking=True)],
            teacher,
            torch.cat(counted),
            lengths,
            torch.cat([torch.arange(length) for length in lengths]),
            0 if epoch is None else config.rollout_steps,
        )


class DeviceIndices(NamedTuple):
    """Indices of a batch on the device, made with the batch, so that no update waits for them."""

    positions: Tensor
    """Of each pair in its document, int64 [T]."""
    bounds: Tensor
    """Where documents begin and end, int32 [N + 1]."""
    reached: list[tuple[Tensor, Tensor | None]]
    """For each step of a rollout the counted pairs that it is trained on, as rows of T and as rows
    of M, int64; the first step is trained on all, and has None."""


@dataclass
class Batch:
    """Pairs of one or more documents side by side.

    `counted` and `positions` stay on the CPU, so that the sizes of what they select are known there
    and no step has to wait for the device.
    """

    features: Tensor
    """Inputs f_t [T, H], with noise when training."""
    next_tokens: Tensor
    """Token t + 1, int64 [T]."""
    targets: Tensor
    """f_{t+1} at counted pairs, without noise [M, H]."""
    teacher: Teacher
    """The teacher at counted pairs."""
    counted: Tensor
    """Counted pairs, int64 [M]."""
    lengths: list[int]
    """Pairs of each document and of the padding, if any; they add up to T."""
    positions: Tensor
    """The position of each pair in its document, int64 [T]."""
    rollout_steps: InitVar[int] = 0
    """Further steps in which training reads predictions."""
    indices: DeviceIndices = field(init=False)

    def __post_init__(self, rollout_steps: int) -> None:
        device = self.features.device

        def move(indices: Tensor) -> Tensor:
            return indices.to(device, non_blocking=True)

        later = [self.reached(step) for step in range(1, 1 + rollout_steps)]
        self.indices = DeviceIndices(
            move(self.positions),
            documents_bounds(self.lengths, device),
            [
                (move(self.counted), None),
                *((move(self.counted[rows]), move(rows)) for rows in later),
            ],
        )

    def reached(self, step: int) -> Tensor:
        """Which of the M counted pairs can be the end of a draft of `step` + 1 tokens, int64.

        Its first token continues a token that the verifier chose, so the pair `step` before the
        end must be counted too.
        """
        counts = torch.zeros(len(self.positions), dtype=torch.bool)
        counts[self.counted] = True
        first = (self.counted - step).clamp(min=0)
        reached = counts[first] & (self.positions[self.counted] >= step)
        return reached.nonzero()[:, 0]


def input_noise(states: Tensor, config: TrainConfig, epoch: int, document: int) -> Tensor:
    """Uniform noise for a document's input features [L, H], drawn on their device.

    It depends on (seed, epoch, document) alone, so neither the number of processes nor the other
    documents of a micro-step change it. "length_scaled" is the official code's factor 512 / L.
    """
    digest = hashlib.sha256(f"{config.seed} {epoch} {document}".encode()).digest()
    generator = torch.Generator(states.device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    scale = 512 / len(states) if config.noise_form == "length_scaled" else 1.0
    low, high = config.noise_low * scale, config.noise_high * scale
    return torch.empty_like(states).uniform_(low, high, generator=generator)


def chain_acceptance_counts(
    batch: Batch, agreements: Iterable[Callable[[Tensor], Tensor]]
) -> Tensor:
    """Count how many chains of drafted tokens reach each length.

    A chain starts at every counted pair and follows the document. If the verifier itself would
    write that text, drafted chains meet the same, so the first row divided by the second estimates
    alpha_n (paper, section 4).

    Args:
        agreements: for each rollout step a function that tells at which of some counted pairs
            (indices into `batch.counted`) the draft's token is the verifier's. It is called only
            for the chains that have come so far.

    Returns:
        float64 [2, steps]: at step n, the chains that reach length n + 1, and those of length n.
    """
    counts = []
    alive = torch.ones(len(batch.positions), dtype=torch.bool)
    for step, agree in enumerate(agreements):
        rows = batch.reached(step)
        if step:
            rows = rows[alive[batch.counted[rows] - 1]]
        accepted = agree(rows).cpu()
        alive = torch.zeros_like(alive)
        alive[batch.counted[rows]] = accepted
        counts.append([int(accepted.sum()), len(rows)])
    return torch.tensor(counts, dtype=torch.float64).T
