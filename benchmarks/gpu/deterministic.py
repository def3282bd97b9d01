"""What updates cost whose algorithms give the same numbers each time."""

from benchmarks.gpu.clock import TimedTrainer, seconds_of
from benchmarks.gpu.models import random_documents, random_verifier
from benchmarks.gpu.part import Report
from benchmarks.gpu.scale import Scale
from benchmarks.gpu.training import trainer_of
from eagle.training.determinism import deterministic

WARM, TIMED = 4, 12
"""Updates before those that are timed, and the number of these."""


def measure_deterministic(scale: Scale, report: Report) -> None:
    """The same updates with `train.deterministic` and without, features in memory."""
    verifier = random_verifier(scale.verifier, scale.device)
    tokens = random_documents(scale.buffer, scale.verifier["vocab_size"], scale.longest)
    passes = 1 + (WARM + TIMED) * scale.batch // len(tokens)
    with trainer_of(scale, verifier, tokens, "replay", passes) as trainer:
        with deterministic(True):  # first, because cuBLAS reads its setting at its first product
            slower = milliseconds(scale, trainer)
        usual = milliseconds(scale, trainer)
    report(deterministic_milliseconds=slower, usual_milliseconds=usual, cost=slower / usual - 1)


def milliseconds(scale: Scale, trainer: TimedTrainer) -> float:
    """Of an update."""

    def updates(first: int, count: int) -> None:
        for update in range(first, first + count):
            trainer._update(update)

    updates(0, WARM)
    return 1000 * seconds_of(lambda: updates(WARM, TIMED), scale.device) / TIMED
