"""Each process's share of every update, in batches."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from eagle.config import TrainConfig
from eagle.tokens.token_set import balance_by_tokens
from eagle.training.batch import Batch, Split
from eagle.training.distributed import rank_and_world
from eagle.training.updates import Update

MicroStep = tuple[int, tuple[int, ...]]
"""Epoch and documents of a batch."""


class MicroSteps:
    """This rank's micro-steps.

    An update's documents are divided among processes x accumulation steps, with about equal tokens
    in each part.
    """

    def __init__(self, config: TrainConfig, split: Split, updates: list[Update], ahead: bool):
        """Take all updates of the run, in order.

        Args:
            ahead: make each batch in a thread during the step before it. On a GPU, gathering and
                copying features then take no time from training; on a CPU nothing is gained.
        """
        self.config, self.split, self.updates, self.ahead = config, split, updates, ahead
        self.rank, world = rank_and_world()
        self.slots = world * config.gradient_accumulation_steps
        self.lengths = split.tokens.bounds.diff().tolist()
        self.thread = ThreadPoolExecutor(1)
        self.pending: dict[MicroStep, Future[Batch]] = {}

    def batches(self, update: int) -> Iterator[Batch]:
        """This rank's batches of an update, whose features are prepared."""
        steps, following = self._steps(update), self._steps_with_features_after(update)
        for step, after in zip(steps, [*steps[1:], *following[:1], None], strict=False):
            pending = self.pending.pop(step, None)
            batch = pending.result() if pending else self._make(step)
            if self.ahead and after is not None:
                self.pending[after] = self.thread.submit(self._make, after)
            yield batch

    def _steps_with_features_after(self, update: int) -> list[MicroStep]:
        """The next update's micro-steps, if their features are in memory by now."""
        following = update + 1
        if following == len(self.updates):
            return []
        same = self.updates[following].buffer == self.updates[update].buffer
        return self._steps(following) if same else []

    def _steps(self, update: int) -> list[MicroStep]:
        planned = self.updates[update]
        parts = balance_by_tokens(planned.documents, self.lengths, self.slots)
        count = self.config.gradient_accumulation_steps
        own = parts[self.rank * count : (self.rank + 1) * count]
        return [(planned.epoch, tuple(documents)) for documents in own if documents]

    def _make(self, step: MicroStep) -> Batch:
        epoch, documents = step
        return self.split.batch(documents, self.config, epoch)
