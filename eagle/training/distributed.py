"""The processes that train together: joining them, and what they tell each other.

Where one process trains alone, every function here answers as for a group of one.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed

from eagle.errors import InputError


@contextmanager
def process_group() -> Iterator[torch.device]:
    """Join the processes that torchrun started; yields this process's device.

    Raises:
        InputError: there are more processes than GPUs.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        local_rank, gpus = local_rank_and_world()[0], torch.cuda.device_count()
        if local_rank >= gpus:
            raise InputError(
                f"process {local_rank} has no GPU: this machine shows {gpus}; start as many "
                "processes as GPUs (--nproc_per_node, machine.processes)"
            )
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    if world > 1:
        # A single agent without --standalone keeps one store over its restarts, where the new
        # processes would find the addresses of those that died. Several agents count their restarts
        # apart and make a store for each round.
        store, rank, _ = next(distributed.rendezvous("env://"))
        one_agent = os.environ.get("LOCAL_WORLD_SIZE") == str(world)
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if one_agent else "of several"
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=distributed.PrefixStore(f"attempt {attempt}", store),
            rank=rank,
            world_size=world,
        )
    yield device
    if world > 1:
        # Every rank's last all-reduce must be freed before the group is, or gloo's thread and the
        # interpreter wait for each other. The caller has let go of what refers to the group.
        distributed.barrier()
        distributed.destroy_process_group()


def rank_and_world() -> tuple[int, int]:
    """This process's number among all processes, and their number."""
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
    """Whether `here` is true on any rank, so that all ranks take the same decision."""
    if not distributed.is_initialized():
        return here
    answer = torch.tensor(int(here))  # on the CPU, so that no rank waits for its device
    distributed.all_reduce(answer, distributed.ReduceOp.MAX)
    return bool(answer)


def sum_over_ranks(tensor: Tensor) -> None:
    """Replace a tensor by its sum over all ranks."""
    if distributed.is_initialized():
        distributed.all_reduce(tensor)


def broadcast(tensor: Tensor, source: int) -> None:
    """Replace a tensor by that of the rank `source`."""
    if distributed.is_initialized():
        # as bytes: not every backend sends bfloat16
        distributed.broadcast(tensor.view(torch.uint8), source)


def barrier() -> None:
    """Wait until every rank is here."""
    if distributed.is_initialized():
        distributed.barrier()
