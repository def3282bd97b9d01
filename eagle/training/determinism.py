"""The same numbers in every run with the same devices and software."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from eagle.errors import InputError, one_line

# cuBLAS sums in one order if its workspace has a fixed size.
WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Have torch take deterministic algorithms alone meanwhile, if that is wanted.

    To be entered before a GPU is used: cuBLAS reads its setting at its first product. On a CPU
    nothing changes, because training's operations have one order there.

    On a GPU these change (torch's list at `torch.use_deterministic_algorithms`, and its source):
    the backward passes of FlashAttention and of memory-efficient attention sum in one order, and
    the gradient of the counted rows (index_put) is added up in the order of the rows. No operation
    of training is one of those that torch refuses then. A verifier's own code may have one.

    Raises:
        InputError: such an operation was called.
    """
    if not wanted:
        yield
        return
    os.environ.setdefault(WORKSPACE, ":4096:8")
    torch.use_deterministic_algorithms(True)
    # it finds reads of what was never written, for a kernel with each new tensor
    torch.utils.deterministic.fill_uninitialized_memory = False
    try:
        yield
    except RuntimeError as error:
        if "does not have a deterministic implementation" not in str(error):
            raise
        raise InputError(
            f"--deterministic = true (train.deterministic): {one_line(error)}; set it to false"
        ) from None
    finally:
        torch.use_deterministic_algorithms(False)
        torch.utils.deterministic.fill_uninitialized_memory = True
