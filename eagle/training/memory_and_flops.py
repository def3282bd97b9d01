"""What training costs: memory and floating-point operations."""

import math
import resource
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from eagle.config import TrainConfig
from eagle.draft.draft import Draft
from eagle.errors import InputError
from eagle.tokens.token_set import balance_by_tokens
from eagle.training.distributed import rank_and_world
from eagle.training.updates import Update
from eagle.verifier.verifier import Verifier


def check_memory(
    config: TrainConfig,
    draft: Draft,
    updates: Sequence[Update],
    lengths: list[int],
    device: torch.device,
) -> None:
    """Compare the largest micro-step's memory with what is free, before the first update.

    Args:
        lengths: tokens of every training document.

    Raises:
        InputError: it does not fit.
    """
    slots = rank_and_world()[1] * config.gradient_accumulation_steps
    needed, largest = 0, 0
    for update in updates:
        for documents in balance_by_tokens(update.documents, lengths, slots):
            tokens = [lengths[document] for document in documents]
            largest = max(largest, sum(tokens))
            needed = max(needed, memory_of_step(draft, tokens, config.rollout_steps))
    if config.features == "replay":
        tokens = max(sum(lengths[d] for d in update.buffer) for update in updates)
        # features and teacher, in 2 bytes each; validation has a buffer of its own
        needed += 2 * tokens * draft.config.hidden_size * (2 + 2)
    free = free_memory(device)
    if needed > free:
        raise InputError(
            f"a micro-step of {largest:,} tokens needs about {needed / 1e9:.1f} GB and "
            f"{device.type} has {free / 1e9:.1f} GB free: lower --micro-batch-size and "
            "raise --gradient-accumulation-steps by the same factor "
            "(machine.gradient_accumulation_steps), or lower --maximum-model-length "
            "or --replay-documents"
        )


def memory_of_step(draft: Draft, lengths: Sequence[int], rollout_steps: int) -> int:
    """Bytes that training a draft needs for a micro-step, an upper estimate.

    Gradient, two moments and their update: 16 bytes per weight. Kept for the backward pass, per
    token and step: the pair and its noisy float32 input (2 + 4 H), the results of fc, attention and
    residuals (10 H) and of the MLP (4 I), in 4 bytes at most. The loss adds its blocks
    (eagle/training/loss.py). In rollout step j a document of length L has a mask of (j + 1) L²
    bytes, for which attention also needs 4 bytes each, and the keys and values of all steps so far.

    Args:
        lengths: tokens of each document of the micro-step.
    """
    weights = sum(parameter.numel() for parameter in draft.parameters())
    hidden, inner = draft.config.hidden_size, draft.config.intermediate_size
    tokens, steps = sum(lengths), 1 + rollout_steps
    kept = steps * tokens * (16 * hidden + 4 * inner) * 4
    keys = sum(range(2, steps + 1))  # over all further steps, in multiples of a document's length
    kept += keys * (5 * sum(length**2 for length in lengths) + tokens * 2 * hidden * 4)
    return 16 * weights + kept


def free_memory(device: torch.device) -> float:
    """Free memory of a device in bytes; infinite where the system does not report it."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return math.inf
    lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
    return 1024 * int(lines["MemAvailable"].split()[0])


def peak_memory_mb(device: torch.device) -> float:
    """Most memory used so far, in MB (10^6 bytes): on the GPU, or by this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def speed(
    config: TrainConfig,
    draft: Draft,
    verifier: Verifier,
    softmax_vocabulary: int,
    rows: list[dict],
    seconds: float,
) -> dict[str, float]:
    """Speed of some updates, without features that were computed before training began.

    Args:
        rows: of the history.
        seconds: wall time of these updates.
    """
    tokens, masked = (sum(row[name] for row in rows) for name in ("tokens", "masked_tokens"))
    done = operations(draft, softmax_vocabulary, config.rollout_steps, tokens, masked)
    if config.features == "replay":
        once = operations_of_features(verifier, softmax_vocabulary, tokens, masked)
        done += once / config.replay_passes
    found = {
        "step_tokens_per_second": tokens / seconds,
        "step_tflops": done / 1e12 / seconds / rank_and_world()[1],
        "peak_memory_mb": peak_memory_mb(verifier.head.device),
    }
    if config.peak_tflops:
        found["flop_utilization"] = found["step_tflops"] / config.peak_tflops
    return found


def operations(
    draft: Draft, softmax_vocabulary: int, rollout_steps: int, tokens: int, masked: int
) -> float:
    """Floating-point operations of the matrix products in training, without those of attention,
    which are a few percent at usual lengths.

    A weight needs 2 operations per token forward and 4 backward, the frozen head 2 products per
    masked token.
    """
    weights = _matrix_elements(draft)
    head = 4 * softmax_vocabulary * draft.config.hidden_size
    return (1 + rollout_steps) * (6 * weights * tokens + head * masked)


def operations_of_features(
    verifier: Verifier, softmax_vocabulary: int, tokens: int, masked: int
) -> float:
    """The same for computing features and teacher once."""
    layers = _matrix_elements(verifier.layers)
    return 2 * layers * tokens + 4 * softmax_vocabulary * verifier.head.shape[1] * masked


def _matrix_elements(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.dim() == 2)
