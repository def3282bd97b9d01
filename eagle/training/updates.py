"""Which documents every update trains on, and in which order."""

import random
from dataclasses import dataclass

from eagle.config import TrainConfig
from eagle.errors import InputError


@dataclass(frozen=True)
class Update:
    """The documents of one optimizer step."""

    epoch: int
    """How many passes over these documents came before."""
    buffer: tuple[int, ...]
    """The documents whose features are in memory together, those of this update among them."""
    documents: tuple[int, ...]


def plan_updates(config: TrainConfig, documents: int, global_batch: int) -> list[Update]:
    """Every update in order: a buffer of documents is passed over several times, then the next one.

    Each pass over a buffer has an order of its own, and so has each drawing of the buffers. The
    order depends on nothing but the arguments, so a resumed run or one on more processes sees the
    same updates. The last update of a pass may be smaller. With cached features one buffer has all
    documents.

    Args:
        documents: how many there are.
        global_batch: documents in an update.

    Raises:
        InputError: the replay buffer has fewer documents than an update.
    """
    buffer, passes = documents, config.epochs
    if config.features == "replay":
        buffer, passes = config.replay_documents, config.replay_passes
        if buffer < global_batch:
            raise InputError(
                f"--replay-documents = {buffer} is fewer than the {global_batch} conversations of "
                "an update; raise it to at least as many"
            )
    updates = []
    for first in range(0, config.epochs, passes):
        drawn = list(range(documents))
        random.Random(f"{config.seed} {first}").shuffle(drawn)
        for start in range(0, documents, buffer):
            buffered = tuple(drawn[start : start + buffer])
            for epoch in range(first, min(first + passes, config.epochs)):
                order = sorted(buffered)  # so that one buffer of all documents is like the cache
                random.Random(f"{config.seed} {epoch} {start}").shuffle(order)
                for at in range(0, len(order), global_batch):
                    updates.append(Update(epoch, buffered, tuple(order[at : at + global_batch])))
    return updates
