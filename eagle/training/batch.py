"""What one micro-step reads: documents side by side, with everything their loss needs.

Shapes: T pairs of all documents and of the filling behind them, M counted ones, H hidden. A pair t
is the feature f_t and token t + 1; its target is f_{t+1}.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eagle.config import TrainConfig
from eagle.errors import InputError
from eagle.tokens.token_set import TokenSet
from eagle.training.features import Features
from eagle.training.loss import ROUND, Teacher


@dataclass
class Split:
    """Training or validation documents with their features and counted positions."""

    tokens: TokenSet
    features: Features
    counted: list[Tensor]
    """A bool tensor [L - 1] a document: which (input, target) pairs count."""

    @classmethod
    def make(
        cls, tokens: TokenSet, features: Features, alignment: str, stop_token_ids: list[int]
    ) -> "Split":
        """Raises: InputError: no position counts."""
        counted = [tokens.counted(d, alignment, stop_token_ids) for d in range(len(tokens))]
        if not any(positions.any() for positions in counted):
            raise InputError(
                f"none of {len(tokens)} documents has a position that counts with mask_alignment "
                f"= {alignment}: check the data's replies and the template's generation markers"
            )
        return cls(tokens, features, counted)

    def number_counted(self, documents: Sequence[int]) -> int:
        return sum(int(self.counted[document].sum()) for document in documents)

    def batch(self, documents: Sequence[int], command: TrainConfig, epoch: int | None) -> "Batch":
        """Pairs of `documents`, with noise on the inputs unless `epoch` is None.

        Behind them stands one more document of zeros, which counts nowhere and fills the pairs up
        to a multiple of ROUND: few shapes spare a CPU from building kernels for each, and a
        compiler from compiling.
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
                states + input_noise(states, command, epoch, document)
                for states, document in zip(inputs, documents, strict=True)
            ]
        spans = [self.tokens.span(document) for document in documents]
        next_tokens = [self.tokens.token_ids[span][1:] for span in spans]
        counted = [at + first for at, first in zip(chosen, firsts, strict=True)]
        # documents before this one have one feature more than pairs each
        targets = torch.cat([at + number + 1 for number, at in enumerate(counted)])
        filling = -sum(lengths) % ROUND
        if filling:
            inputs.append(features.new_zeros(filling, features.shape[1], dtype=torch.float32))
            next_tokens.append(torch.zeros(filling, dtype=torch.int32))
            lengths.append(filling)
        return Batch(
            torch.cat(inputs),
            torch.cat(next_tokens).long().to(device, non_blocking=True),
            features[targets.to(device, non_blocking=True)],
            teacher,
            torch.cat(counted),
            lengths,
            torch.cat([torch.arange(length) for length in lengths]),
        )


@dataclass
class Batch:
    """Pairs of one or more documents side by side.

    `counted` and `positions` stay on the CPU: whatever is picked by them is known there, and no
    step has to wait for the device to say how much it is.
    """

    features: Tensor
    """Inputs f_t [T, H], with noise when training."""
    next_tokens: Tensor
    """Token t + 1, int64 [T]."""
    targets: Tensor
    """f_{t+1} at counted pairs, without noise [M, H]."""
    teacher: Teacher
    """The verifier's distribution there."""
    counted: Tensor
    """Counted pairs, int64 [M]."""
    lengths: list[int]
    """Pairs of each document and of the filling, if any; they add up to T."""
    positions: Tensor
    """Of each pair in its document, int64 [T]."""

    def reached(self, step: int) -> Tensor:
        """Which of the M counted pairs a draft of `step` + 1 tokens can end at, int64: its first
        token must continue one that the verifier chose, so the pair `step` before counts too."""
        counts = torch.zeros(len(self.positions), dtype=torch.bool)
        counts[self.counted] = True
        before = (self.counted - step).clamp(min=0)
        began = counts[before] & (self.positions[self.counted] >= step)
        return began.nonzero()[:, 0]


def input_noise(states: Tensor, command: TrainConfig, epoch: int, document: int) -> Tensor:
    """Uniform noise for a document's input features [L, H], drawn where they are.

    Drawn from (seed, epoch, document) alone, so neither the number of processes nor what shares a
    micro-step changes it. "length_scaled" is the official code's 512 / L.
    """
    digest = hashlib.sha256(f"{command.seed} {epoch} {document}".encode()).digest()
    generator = torch.Generator(states.device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    scale = 512 / len(states) if command.noise_form == "length_scaled" else 1.0
    low, high = command.noise_low * scale, command.noise_high * scale
    return torch.empty_like(states).uniform_(low, high, generator=generator)


def chain_acceptance_counts(
    batch: Batch, agreements: Iterable[Callable[[Tensor], Tensor]]
) -> Tensor:
    """How many runs of drafted tokens came to length n + 1, of those that came to n: [2, steps].

    A run starts at every counted pair and follows the document: with text that the verifier would
    write itself, that is what a chain meets, so the two rows' ratio estimates alpha_n.

    Args:
        agreements: for each rollout step a function that says at which of some counted pairs
            (indices into `batch.counted`) the draft's token is the verifier's. It is asked only
            about runs that came there.
    """
    runs = []
    alive = torch.ones(len(batch.positions), dtype=torch.bool)
    for step, agree in enumerate(agreements):
        rows = batch.reached(step)
        if step:
            rows = rows[alive[batch.counted[rows] - 1]]
        went_on = agree(rows).cpu()
        alive = torch.zeros_like(alive)
        alive[batch.counted[rows]] = went_on
        runs.append([int(went_on.sum()), len(rows)])
    return torch.tensor(runs, dtype=torch.float64).T
