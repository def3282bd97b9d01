"""Validation: held-out documents without noise, on decoding-aligned positions, as in serving."""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from eagle.config import TrainConfig
from eagle.training.batch import Batch, Split, chain_acceptance_counts
from eagle.training.distributed import any_rank, rank_and_world, sum_over_ranks
from eagle.training.loss import eagle_loss, likeliest_tokens

# Drafted tokens whose acceptance is estimated: alpha_0 … alpha_4, as in the paper.
DRAFTED = 5


class ValidationSums(NamedTuple):
    """Sums over counted positions."""

    loss: Tensor | float
    """Cross-entropy in nats."""
    top1: Tensor | float
    """Positions where the draft's most likely token is the verifier's."""
    top5: Tensor | float
    """Positions where the verifier's most likely token is among the draft's five most likely."""


class Validation:
    """The validation of a run's draft, done several times."""

    def __init__(
        self,
        config: TrainConfig,
        split: Split,
        predict: Callable[[Batch, int], Iterator[Tensor]],
    ):
        """Prepare for any number of validations.

        Args:
            split: the held-out documents, with a teacher over the full vocabulary.
            predict: predicted features [T, H] of a batch, then again that number of times with the
                draft's own predictions as its input.
        """
        self.config, self.split, self.predict = config, split, predict
        self.vocabulary = split.features.vocabulary
        self.rank, self.world = rank_and_world()

    @torch.no_grad()
    def run(self, is_over: Callable[[], bool]) -> dict[str, float] | None:
        """Compare the draft with the verifier; all ranks share the documents.

        Args:
            is_over: whether this rank gives up; called before each document.

        Returns:
            Soft cross-entropy in nats per position, top-1 and top-5 agreement, and estimated
            acceptance rates (`eagle.training.batch.chain_acceptance_counts`); None if a rank gave
            up.
        """
        documents = range(len(self.split.tokens))
        device = self.vocabulary.head.device
        totals = torch.zeros(len(ValidationSums._fields), dtype=torch.float64, device=device)
        chains = torch.zeros(2, DRAFTED, dtype=torch.float64)  # on the CPU, as its counts are
        size = self.config.replay_documents
        for start in range(0, len(documents), size):
            if any_rank(is_over()):
                return None
            buffer = documents[start : start + size]
            self.split.features.prepare(tuple(buffer))
            for document in buffer[self.rank :: self.world]:
                if is_over():  # the other ranks are told below
                    break
                batch = self.split.batch([document], self.config, epoch=None)
                sums, counts = self._compare(batch)
                totals += torch.stack(sums)
                chains += counts
        if any_rank(is_over()):
            return None
        sum_over_ranks(totals)
        sum_over_ranks(chains)
        means = ValidationSums(*(totals / self.split.count_positions(documents)).tolist())
        rates = (chains[0] / chains[1].clamp(min=1)).tolist()
        return {
            "validation_loss": means.loss,
            "validation_top1": means.top1,
            "validation_top5": means.top5,
            **{f"alpha_{n}": rate for n, rate in enumerate(rates)},
        }

    def _compare(self, batch: Batch) -> tuple[ValidationSums, Tensor]:
        """Sums in float64, and what `chain_acceptance_counts` counts."""
        predictions = self.predict(batch, DRAFTED - 1)
        first = next(predictions)
        device = first.device
        at_counted = first[batch.counted.to(device)]
        sums = eagle_loss(at_counted, batch.targets, batch.teacher, self.vocabulary)
        token, five = likeliest_tokens(at_counted, self.vocabulary.head, 5)
        agrees = token == batch.teacher.likeliest
        among_five = five == batch.teacher.likeliest[:, None]

        def agrees_with(predicted: Tensor, rows: Tensor) -> Tensor:
            at_rows = predicted[batch.counted[rows].to(device)]
            token, _ = likeliest_tokens(at_rows, self.vocabulary.head, 1)
            return token == batch.teacher.likeliest[rows.to(device)]

        later = [functools.partial(agrees_with, predicted) for predicted in predictions]
        counts = chain_acceptance_counts(batch, [lambda rows: agrees[rows.to(device)], *later])
        values = (sums.classification, agrees, among_five)
        return ValidationSums(*(value.double().sum() for value in values)), counts
