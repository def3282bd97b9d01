"""What training costs: memory, free or taken, and floating-point operations."""

import math
import resource
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from eagle.draft.draft import Draft
from eagle.verifier.verifier import Verifier


def memory_of_step(draft: Draft, lengths: Sequence[int], rollout_steps: int) -> int:
    """Bytes that training a draft takes on a micro-step, estimated from above.

    Gradient, two moments and their update: 16 bytes a weight. Kept for the backward pass, a token
    and a step: the pair and its noisy float32 input (2 + 4 H), what fc, attention and residuals
    leave (10 H) and the MLP (4 I), in 4 bytes at most. The loss adds a chunk (eagle/training/loss.py).
    A document of length L has a mask of (j + 1) L² bytes in rollout step j, which attention also
    wants in 4 bytes, and that step's keys and values of all steps so far.

    Args:
        lengths: tokens of each document of the micro-step.
    """
    weights = sum(parameter.numel() for parameter in draft.parameters())
    hidden, inner = draft.config.hidden_size, draft.config.intermediate_size
    tokens, steps = sum(lengths), 1 + rollout_steps
    kept = steps * tokens * (16 * hidden + 4 * inner) * 4
    seen = sum(range(2, steps + 1))  # keys of all further steps, in documents
    kept += seen * (5 * sum(length**2 for length in lengths) + tokens * 2 * hidden * 4)
    return 16 * weights + kept


def free_memory(device: torch.device) -> float:
    """Bytes a device can still give; infinite where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return math.inf
    lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
    return 1024 * int(lines["MemAvailable"].split()[0])


def peak_memory_mb(device: torch.device) -> float:
    """Most memory held so far, in MB (10^6 bytes): the GPU's, or this process's on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def operations(
    draft: Draft, softmax_vocabulary: int, rollout_steps: int, tokens: int, masked: int
) -> float:
    """Floating-point operations of the products in training; attention's own, a few percent at
    usual lengths, are left out.

    A weight costs 2 a token forward and 4 backward, the frozen head 2 products a masked token.
    """
    weights = _matrix_elements(draft)
    head = 4 * softmax_vocabulary * draft.config.hidden_size
    return (1 + rollout_steps) * (6 * weights * tokens + head * masked)


def operations_of_features(
    verifier: Verifier, softmax_vocabulary: int, tokens: int, masked: int
) -> float:
    """The same for computing features and teacher once."""
    layers = _matrix_elements(verifier.model.base_model.layers)
    return 2 * layers * tokens + 4 * softmax_vocabulary * verifier.head.shape[1] * masked


def _matrix_elements(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.dim() == 2)
