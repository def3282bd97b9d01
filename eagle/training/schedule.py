"""The learning rate of every update."""

from dataclasses import dataclass

from eagle.config import TrainConfig
from eagle.errors import InputError


@dataclass(frozen=True)
class Schedule:
    """The learning rate rises in a straight line to its peak, then falls in one to zero."""

    peak: float
    warmup: int
    """Updates before the peak."""
    total: int
    """Updates until zero; training may end before."""

    @classmethod
    def from_config(cls, config: TrainConfig, planned: int, world: int) -> "Schedule":
        """The config counts scheduler ticks, as the upstream tutorial does: updates x processes.

        Args:
            planned: updates of all epochs, which the schedule spans when the config does not say.
            world: number of processes.

        Raises:
            InputError: the warm-up is as long as the whole schedule.
        """
        warmup = config.num_warmup_steps // world
        ticks = config.num_training_steps
        total = ticks // world if ticks else planned
        if warmup >= total:
            raise InputError(
                f"the warm-up of {warmup} updates is not shorter than the schedule of "
                f"{total} updates; lower the warm-up or train longer"
            )
        return cls(config.learning_rate, warmup, total)

    def learning_rate(self, update: int) -> float:
        """Of the update with this number, from 0."""
        if update < self.warmup:
            return self.peak * ((update + 1) / (self.warmup + 1))
        return self.peak * max(0.0, (self.total - update) / max(1, self.total - self.warmup))
