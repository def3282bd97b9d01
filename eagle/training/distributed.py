"""The processes that train together: who this one is, and what they tell each other."""

import os

import torch
from torch import distributed


def rank_and_world() -> tuple[int, int]:
    """This process's number among all, and how many there are."""
    if distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def local_rank_and_world() -> tuple[int, int]:
    """The same among this machine's processes, as torchrun numbers them."""
    return int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def gather(value: object) -> list:
    """Every rank's value, in the order of ranks."""
    if not distributed.is_initialized():
        return [value]
    values = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def any_rank(here: bool) -> bool:
    """Whether it is so on any rank: all of them leave after the same update."""
    if not distributed.is_initialized():
        return here
    answer = torch.tensor(int(here))  # on the CPU, so that no rank waits for its device
    distributed.all_reduce(answer, distributed.ReduceOp.MAX)
    return bool(answer)


def barrier() -> None:
    """Wait until every rank is here."""
    if distributed.is_initialized():
        distributed.barrier()
