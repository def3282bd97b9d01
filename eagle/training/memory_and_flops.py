"""What training costs: its memory beside what there is, and floating-point operations."""

import math
import resource
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from eagle.config import TrainConfig
from eagle.draft.draft import Draft
from eagle.errors import InputError
from eagle.tokens.token_set import TokenSet, balance_by_tokens
from eagle.training.batch import Split
from eagle.training.distributed import local_rank_and_world, rank_and_world
from eagle.training.loss import ROUND, block_sizes
from eagle.training.memory import Sizes, activations, as_line, memory_by_part
from eagle.training.updates import Update
from eagle.verifier.verifier import Verifier


def sizes_of(
    config: TrainConfig,
    compute_dtype: torch.dtype,
    draft: Draft,
    verifier: Verifier,
    train: Split,
    validation: Split,
    updates: Sequence[Update],
) -> Sizes:
    """What decides the memory of this process."""
    lengths = train.tokens.bounds.diff().tolist()
    slots = rank_and_world()[1] * config.gradient_accumulation_steps
    steps = {
        tuple(sorted(lengths[document] for document in documents))
        for update in updates
        for documents in balance_by_tokens(update.documents, lengths, slots)
    }
    cached, held = config.features == "cache", range(len(validation.tokens))
    size = len(held) if cached else config.replay_documents
    kept = [
        _kept(train.tokens, {update.buffer for update in updates}),
        _kept(validation.tokens, [held[first : first + size] for first in held[::size]]),
    ]
    layers = [weight for weight in verifier.layers.parameters() if weight.dim() == 2]
    head, shape = validation.features.vocabulary.head, draft.config
    sizes = Sizes(
        device=head.device.type,
        threads=torch.get_num_threads(),
        verifier_weights=sum(
            (weight.to_local() if isinstance(weight, DTensor) else weight).numel()
            for weight in verifier.parameters()
        ),
        verifier_bytes=verifier.head.dtype.itemsize,
        verifier_inner=max(max(weight.shape) for weight in layers),
        vocabulary=len(head),
        head_bytes=head.dtype.itemsize,
        softmax_vocabulary=len(train.features.vocabulary.head),
        blocks=block_sizes(head.device),
        hidden=shape.hidden_size,
        draft_weights=sum(parameter.numel() for parameter in draft.parameters()),
        draft_inner=shape.intermediate_size,
        draft_keys=shape.num_key_value_heads * shape.head_dim,
        compute_bytes=compute_dtype.itemsize,
        rollout_steps=config.rollout_steps,
        lengths=(),
        different_steps=len({math.ceil(sum(step) / ROUND) for step in steps}),
        kept_tokens=sum(tokens for tokens, _ in kept),
        taught_tokens=sum(taught for _, taught in kept),
        cached=cached,
        verifier_runs=train.features.verifier_runs,
    )
    return max((replace(sizes, lengths=step) for step in steps), key=activations)


def _kept(tokens: TokenSet, groups: Iterable[Sequence[int]]) -> tuple[int, int]:
    """Tokens, and taught ones, of the group of documents that has most."""
    lengths = tokens.bounds.diff().tolist()
    before = torch.cat([torch.zeros(1, dtype=torch.int64), tokens.taught().cumsum(0)])
    taught = before[tokens.bounds].diff().tolist()
    return max(
        (sum(lengths[document] for document in group), sum(taught[document] for document in group))
        for group in groups
    )


def check_memory(sizes: Sizes, device: torch.device) -> str:
    """Compare the memory that training needs with what is there, before the first update.

    Returns:
        What it needs, by part, in one line.

    Raises:
        InputError: it does not fit.
    """
    parts = memory_by_part(sizes)
    # what is in memory by now is in the estimate too; mapped files give way when memory is short
    mapped = parts["features"] if sizes.cached else 0
    needed = sum(parts.values()) - mapped - _used_memory(device)
    free = free_memory(device)
    if needed > free:
        raise InputError(
            f"training on micro-steps of {sum(sizes.lengths):,} tokens needs {as_line(parts)}, "
            f"{needed / 1e9:.1f} GB more than now, and {device.type} has {free / 1e9:.1f} GB free "
            "for each process: lower --micro-batch-size and raise --gradient-accumulation-steps by "
            "the same factor (machine.gradient_accumulation_steps), or lower "
            "--maximum-model-length or --replay-documents"
        )
    return as_line(parts)


def free_memory(device: torch.device) -> float:
    """Free memory of a device in bytes, on a CPU this process's share; infinite where the system
    does not report it."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = _kilobytes(Path("/proc/meminfo"))
    return 1024 * meminfo.get("MemAvailable", math.inf) / local_rank_and_world()[1]


def peak_memory_mb(device: torch.device) -> float:
    """Most memory used so far, in MB (10^6 bytes): on the GPU, or by this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    # not of getrusage, which also has the peak of the process that started this one
    status = _kilobytes(Path("/proc/self/status"))
    other = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return status.get("VmHWM", other) * 1024 / 1e6


def _used_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.memory_allocated()
    return 1024 * _kilobytes(Path("/proc/self/status")).get("VmRSS", 0)


def _kilobytes(file: Path) -> dict[str, int]:
    """The sizes in one of Linux's files about memory; none on another system."""
    if not file.is_file():
        return {}
    lines = (line.split() for line in file.read_text().splitlines())
    return {line[0].rstrip(":"): int(line[1]) for line in lines if line[-1] == "kB"}


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
