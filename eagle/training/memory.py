"""How much training computes at a time, and the memory that it needs: numbers alone, without torch.

Shapes: T tokens of a micro-step, M counted positions among them, H hidden.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

# Tokens in one forward pass of the verifier, padding included. A GPU needs large products. On a
# CPU 1024 are enough, and the intermediate results then fit its cache (a third faster than 4096).
FORWARD_TOKENS = {"cpu": 1024, "cuda": 16_384}


class Blocks(NamedTuple):
    """Rows and columns of the loss's logits that exist at a time, for any vocabulary; `loss_blocks`
    has the memory that they take."""

    rows: int
    columns: int


# 67 MB with a bfloat16 head. The products stay large, and the head's rows of one block serve all
# positions while they are in a CPU's cache.
CPU_BLOCKS = Blocks(1024, 8192)
# A GPU needs few and large kernels: as many rows as a batch of usual length counts.
GPU_ROWS = 8192
# The share of a GPU's memory that a block with a head of 16 bits takes at most, 8 bytes a logit.
GPU_SHARE = 1 / 64


def gpu_blocks(memory: int) -> Blocks:
    """The blocks of a GPU with so many bytes: columns are a power of two."""
    columns = int(memory * GPU_SHARE / (GPU_ROWS * 8))
    return Blocks(GPU_ROWS, 2 ** (columns.bit_length() - 1))


# On a CPU the process counts, not the tensors alone. Measured on x86-64 with torch 2.13: Python,
# the libraries and the tokenizer, when the first update begins. With it the estimate is, of the
# peak: 1.02, 1.05 and 1.03 (two layers with hidden 32, 512 and 1,024 in float32: 476, 666 and
# 1,200 MB), 0.90 (512 in bfloat16: 896 MB), and, for the default's verifier, 0.96 (cache, bfloat16,
# 48 documents: 1,500 MB) and 1.00 (replay, float32, 8 documents a micro-step: 1,437 MB), all with
# one thread; with two, in the default's 1,452 updates, 1.12 (2,873 MB), and 0.88 when the features
# had been cached before (2,743 MB), 1.04 in the first 150 of these updates (2,146 MB).
LIBRARIES = 480_000_000
# oneDNN, which multiplies in bfloat16, keeps the kernels of this many products
# (eagle/training/build.py), and each takes this much with what the allocator loses around it: with
# one thread, and with several, two or four. A new number of tokens needs them for six kinds of the
# draft's weights, each for output, input and weight, and for five of the verifier's.
KEPT_KERNELS, KERNEL_BYTES, KERNEL_BYTES_OF_SEVERAL = 384, 1_400_000, 4_600_000
KERNELS_OF_A_LENGTH, KERNELS_OF_A_PASS = 18, 5


@dataclass(frozen=True)
class Sizes:
    """What decides the memory of one training process. A precision is given in bytes a number."""

    device: str
    """cpu or cuda."""
    threads: int
    """In which a CPU computes."""
    verifier_weights: int
    """Numbers that this process holds, embedding and head included."""
    verifier_bytes: int
    verifier_inner: int
    """Widest hidden layer of its MLPs."""
    vocabulary: int
    head_bytes: int
    """Precision of the products with the head."""
    softmax_vocabulary: int
    blocks: Blocks
    """Of the loss on this device."""
    hidden: int
    """Of verifier and draft."""
    draft_weights: int
    draft_inner: int
    draft_keys: int
    """Width of all its keys together."""
    compute_bytes: int
    """Precision of the draft's products."""
    rollout_steps: int
    lengths: Sequence[int]
    """Tokens of each document of the largest micro-step."""
    different_steps: int
    """Micro-steps with another number of tokens than all others."""
    kept_tokens: int
    """Tokens whose features are kept: of all documents in a cache, or of two replay buffers, that
    of training and that of validation."""
    taught_tokens: int
    """Those of them that have a teacher."""
    cached: bool
    """The features are files: memory of a CPU's process, which the system takes back when it needs
    it, and none of a GPU's."""
    verifier_runs: bool
    """False when all features were in the cache before: of the verifier's file on a CPU, only
    embedding and head are then read."""


def memory_by_part(sizes: Sizes) -> dict[str, int]:
    """Bytes of each part of a training process at its peak.

    On a CPU: of the process (VmHWM). On a GPU: of the tensors (torch.cuda.max_memory_allocated),
    beside which CUDA itself takes some hundred MB.
    """
    cpu = sizes.device == "cpu"
    step = activations(sizes) + loss_blocks(sizes)
    parts = {
        "verifier": _verifier(sizes),
        "features": 0 if sizes.cached and not cpu else _features(sizes),
        "computing features": max(0, _computing_features(sizes) - step),
        "draft and optimizer": draft_and_optimizer(sizes),
        "activations": activations(sizes),
        "loss blocks": loss_blocks(sizes),
    }
    if cpu:
        parts["copy of the state"] = 12 * sizes.draft_weights
        parts["kernels"] = _kernels(sizes)
        parts["Python and libraries"] = LIBRARIES
    return parts


def as_line(parts: dict[str, int]) -> str:
    """The parts and their sum, in MB (10^6 bytes)."""
    terms = ", ".join(f"{name} {size / 1e6:,.0f}" for name, size in parts.items() if size >= 5e5)
    return f"about {sum(parts.values()) / 1e6:,.0f} MB of memory at its peak ({terms})"


def draft_and_optimizer(sizes: Sizes) -> int:
    """Weights, gradients and two moments in float32, and the copy in which 16-bit products read
    the weights."""
    copy = sizes.compute_bytes if sizes.compute_bytes < 4 else 0
    return (16 + copy) * sizes.draft_weights


def activations(sizes: Sizes) -> int:
    """What is kept for the backward pass, and the gradients of the MLP's results."""
    gradients = 2 * sizes.compute_bytes * sizes.draft_inner * sum(sizes.lengths)
    return kept_for_backward(sizes) + gradients


def kept_for_backward(sizes: Sizes) -> int:
    """What autograd keeps of the draft and the loss.

    In the compute precision: the pair (2 H), the layer's input, queries, keys, values, attention's
    output in two layouts, the norm's output before and after its weight, four results of the MLP,
    and the loss's gradient. In float32: the norm's input, the prediction, and the target.

    In rollout step j a document of length L has a mask of (j + 1) L² bytes, for which attention
    also needs 4 bytes each, and the keys and values of all steps so far.
    """
    b, tokens, steps = sizes.compute_bytes, sum(sizes.lengths), 1 + sizes.rollout_steps
    of_token = (9 * b + 12) * sizes.hidden + b * (4 * sizes.draft_inner + 2 * sizes.draft_keys)
    keys = sum(range(2, steps + 1))  # over all further steps, in multiples of a document's length
    masks = 5 * sum(length**2 for length in sizes.lengths)
    return steps * tokens * of_token + keys * (masks + tokens * 2 * sizes.draft_keys * b)


def loss_blocks(sizes: Sizes) -> int:
    """Logits in float32 and, beside a 16-bit head, their products and weights in its precision;
    three sums [R, H] in float32."""
    rows = min(sizes.blocks.rows, sum(sizes.lengths))
    columns = min(sizes.blocks.columns, sizes.vocabulary)  # validation has the whole vocabulary
    of_logit = 4 if sizes.head_bytes == 4 else 4 + 2 * sizes.head_bytes
    return rows * (columns * of_logit + 3 * 4 * sizes.hidden)


def _verifier(sizes: Sizes) -> int:
    """Its weights, the head in another precision, and the head's rows of the softmax."""
    own = sizes.verifier_weights
    head = sizes.vocabulary * sizes.hidden
    if sizes.device == "cpu" and not sizes.verifier_runs:
        own = head
    size = own * sizes.verifier_bytes
    if sizes.head_bytes != sizes.verifier_bytes:
        size += head * sizes.head_bytes
    if sizes.softmax_vocabulary < sizes.vocabulary:
        size += sizes.softmax_vocabulary * sizes.hidden * sizes.head_bytes
    return size


def _features(sizes: Sizes) -> int:
    """Features, and the teacher's means."""
    kept, taught = sizes.kept_tokens, sizes.taught_tokens
    return sizes.hidden * (kept * sizes.verifier_bytes + taught * sizes.head_bytes)


def _computing_features(sizes: Sizes) -> int:
    """A forward pass of the verifier: three results of an MLP, and some of its input's width; then
    the features of a buffer's taught positions beside each other."""
    if not sizes.verifier_runs:
        return 0
    b, hidden = sizes.verifier_bytes, sizes.hidden
    read = max(FORWARD_TOKENS[sizes.device], *sizes.lengths)
    forward = read * (3 * sizes.verifier_inner + 8 * hidden) * b
    gathered = 0 if sizes.cached else sizes.taught_tokens * hidden * b
    return max(forward, gathered + loss_blocks(sizes))


def _kernels(sizes: Sizes) -> int:
    if sizes.compute_bytes == 4:
        return 0
    kernels = KERNELS_OF_A_LENGTH * sizes.different_steps
    if sizes.verifier_runs:  # each of its passes has a new shape
        passes = math.ceil(sizes.kept_tokens / FORWARD_TOKENS["cpu"])
        kernels += KERNELS_OF_A_PASS * passes
    return min(KEPT_KERNELS, kernels) * (
        KERNEL_BYTES if sizes.threads == 1 else KERNEL_BYTES_OF_SEVERAL
    )
