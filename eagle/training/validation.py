"""Validation: held-out documents without noise, on decoding-aligned positions, as in serving."""

import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, distributed

from eagle.config import TrainConfig
from eagle.draft.vocabulary import Vocabulary
from eagle.training.batch import Batch, Split, chain_acceptance_counts
from eagle.training.loss import eagle_loss, likeliest_tokens

# Drafted tokens whose acceptance is estimated, as alpha_0 … alpha_4 in the paper.
DRAFTED = 5


class Validation:
    """What all validations of a run have in common."""

    def __init__(
        self,
        command: TrainConfig,
        split: Split,
        whole: Vocabulary,
        predict: Callable[[Batch, int], Iterator[Tensor]],
        any_rank: Callable[[bool], bool],
    ):
        """Args:
        whole: all of the verifier's head.
        predict: predicted features of a batch [T, H], and then that many times of the draft's own.
        any_rank: whether something holds on any rank.
        """
        self.command, self.split, self.whole = command, split, whole
        self.predict, self.any_rank = predict, any_rank
        self.rank, self.world = 0, 1
        if distributed.is_initialized():
            self.rank, self.world = distributed.get_rank(), distributed.get_world_size()

    @torch.no_grad()
    def judge(self, is_over: Callable[[], bool]) -> dict[str, float] | None:
        """Soft cross-entropy in nats a position, top-1 and top-5 agreement with the verifier, and
        estimated acceptance (`eagle.training.batch.chain_acceptance_counts`); all ranks share the documents.

        Args:
            is_over: whether this rank gives up, asked before each document.

        Returns:
            None when one gave up.
        """
        documents = range(len(self.split.tokens))
        device = self.whole.head.device
        totals = torch.zeros(3, dtype=torch.float64, device=device)  # loss, top-1, top-5
        chains = torch.zeros(2, DRAFTED, dtype=torch.float64)  # on the CPU, as its counts are
        held = self.command.replay_documents
        for start in range(0, len(documents), held):
            if self.any_rank(is_over()):
                return None
            buffer = documents[start : start + held]
            self.split.features.prepare(tuple(buffer))
            for document in buffer[self.rank :: self.world]:
                if is_over():  # the rest is left out; the others hear of it below
                    break
                sums, runs = self._judge(self.split.batch([document], self.command, epoch=None))
                totals += sums
                chains += runs
        if self.any_rank(is_over()):
            return None
        if self.world > 1:
            distributed.all_reduce(totals)
            distributed.all_reduce(chains)
        loss, top1, top5 = (totals / self.split.number_counted(documents)).tolist()
        rates = (chains[0] / chains[1].clamp(min=1)).tolist()
        return {
            "validation_loss": loss,
            "validation_top1": top1,
            "validation_top5": top5,
            **{f"alpha_{n}": rate for n, rate in enumerate(rates)},
        }

    def _judge(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sums of the cross-entropy, of agreements and of how often the verifier's token is among
        the draft's five most likely: float64 [3]. And the runs of `chain_acceptance_counts`."""
        predictions = self.predict(batch, DRAFTED - 1)
        first = next(predictions)
        device = first.device
        at_counted = first[batch.counted.to(device)]
        loss = eagle_loss(at_counted, batch.targets, batch.teacher, self.whole).classification
        token, five = likeliest_tokens(at_counted, self.whole.head, 5)
        agrees = token == batch.teacher.likeliest
        among_five = five == batch.teacher.likeliest[:, None]

        def agrees_with(predicted: Tensor, rows: Tensor) -> Tensor:
            at_reached = predicted[batch.counted[rows].to(device)]
            token, _ = likeliest_tokens(at_reached, self.whole.head, 1)
            return token == batch.teacher.likeliest[rows.to(device)]

        later = [functools.partial(agrees_with, predicted) for predicted in predictions]
        runs = chain_acceptance_counts(batch, [lambda rows: agrees[rows.to(device)], *later])
        return torch.stack([x.double().sum() for x in (loss, agrees, among_five)]), runs
