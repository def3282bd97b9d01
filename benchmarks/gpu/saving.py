"""What a state costs that is written while training goes on."""

import time
from itertools import pairwise
from statistics import median

from benchmarks.gpu.clock import TimedTrainer, seconds_between
from benchmarks.gpu.models import random_documents, random_verifier
from benchmarks.gpu.part import Report
from benchmarks.gpu.scale import Scale
from benchmarks.gpu.training import trainer_of
from eagle.training.on_disk import find_states

EVERY = 600.0
"""Seconds between states, as shipped (`machine.save_minutes`)."""


class SavingTrainer(TimedTrainer):
    """Notes when the first state was begun, when training went on, and when the file was there."""

    written = 0.0

    def _save(self) -> None:
        first = self.state.update == self.config.save
        if first:
            self.begun = time.perf_counter()
        super()._save()
        if first:
            self.went_on = time.perf_counter()

    def _update(self, update: int):
        if update >= self.config.save and not self.written and find_states(self.run_folder):
            self.written, self.written_before = time.perf_counter(), update
        return super()._update(update)


def measure_saving(scale: Scale, report: Report) -> None:
    """Extra time of the updates during which the state was copied and written."""
    verifier = random_verifier(scale.verifier, scale.device)
    tokens = random_documents(scale.buffer, scale.verifier["vocab_size"], scale.longest)
    save = scale.saved_before
    passes = (save + scale.saved_during) * scale.batch // len(tokens)
    with trainer_of(scale, verifier, tokens, "replay", passes, SavingTrainer, save=save) as trainer:
        trainer.run()
    taken = [seconds_between(*two) for two in pairwise(trainer.begins)]
    usual = median(taken[save // 2 : save - 1])
    report(update_milliseconds=1000 * usual, snapshot_seconds=trainer.went_on - trainer.begun)
    if not trainer.written:
        raise RuntimeError(f"the state was not written during {scale.saved_during} updates")
    during = taken[save - 1 : trainer.written_before]
    extra = sum(during) - usual * len(during)
    report(
        written_after_seconds=trainer.written - trainer.begun,
        updates_meanwhile=len(during),
        extra_seconds=extra,
        share_of_ten_minutes=extra / EVERY,
    )
