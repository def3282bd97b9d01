"""Time on the device, without waiting for it."""

import time
from collections.abc import Callable

import torch

from eagle.training.trainer import Trainer


def mark(device: torch.device) -> torch.cuda.Event | float:
    """The moment at which the device comes to this point of its work."""
    if device.type == "cpu":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def seconds_between(first: torch.cuda.Event | float, last: torch.cuda.Event | float) -> float:
    if isinstance(first, float):
        return last - first
    last.synchronize()
    return first.elapsed_time(last) / 1000


def seconds_of(job: Callable[[], object], device: torch.device) -> float:
    """Of a job, until the device has ended it."""
    first = mark(device)
    job()
    return seconds_between(first, mark(device))


class TimedTrainer(Trainer):
    """Marks the beginning and the end of each update."""

    def __init__(self, *arguments):
        self.begins, self.ends = [], []
        super().__init__(*arguments)

    def _update(self, update: int):
        self.begins.append(mark(self.device))
        losses = super()._update(update)
        self.ends.append(mark(self.device))
        return losses
