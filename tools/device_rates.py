"""How fast a machine is: measured here in half a second, or a GPU's known limits."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from eagle.errors import InputError
from eagle.files import read_json

MEASURED = Path("benchmarks/results/gpu.json")
"""What `python -m benchmarks.gpu` wrote on a GPU."""


@dataclass(frozen=True)
class Limits:
    """A GPU's, as its maker states them."""

    tflops: float
    """Dense products in bfloat16."""
    terabytes: float
    """Memory read and written in a second."""
    gigabytes: float


GPUS = {
    "a100": Limits(312, 2.0, 80),
    "l40s": Limits(362, 0.86, 48),
    "rtx4090": Limits(165, 1.0, 24),
    "h100": Limits(989, 3.35, 80),
    "h200": Limits(989, 4.8, 141),
}

GUESSED = "rtx4090"
"""Of GPUS, whose limits are taken for a GPU of this machine that is not among them."""

# Shares of what the maker states that one H200 reached at Llama-2-7B's shape (torch 2.11, commit
# 9a2a5f3, November 2026): forwards 447 TFLOP/s on padded tokens, of which 17% were padding; an
# update 265 TFLOP/s; a vanilla step 18.8 ms, in which 13.2 GB are read.
FORWARD_SHARE, UPDATE_SHARE, DECODE_SHARE = 0.37, 0.27, 0.15
ON_AN_H200 = "shares of the maker's limits that one H200 reached in November 2026, commit 9a2a5f3"

# What the host took there for the kernels of one layer in decoding: (18.8 - 6.1) ms of 32 layers.
LAUNCHING = 0.0004

# Operations that two AMD EPYC cores did in bfloat16 in the default run of commit cbd34d1 (November
# 2026), beside those of numpy's float32 product on the same cores.
FORWARD_OF_PRODUCT, UPDATE_OF_PRODUCT, HEAD_OF_PRODUCT = 1.02, 0.75, 0.45
DECODE_OF_PRODUCT, BATCH_OF_PRODUCT = 0.042, 0.19
PRODUCT = 1024  # rows and columns of the measured product


@dataclass(frozen=True)
class Rates:
    """Operations a second of one training process, and its memory."""

    device: str
    """cpu or cuda."""
    name: str
    forward: float
    """In the verifier's forwards, real tokens only."""
    update: float
    head: float
    """In the head's products of a validation."""
    decode: float
    """In decoding one text, 2 operations a weight."""
    batch: float
    """In decoding many texts at a time."""
    memory: float
    """Bytes that are free."""
    launching: float
    """Seconds that the host needs for a layer's kernels, whatever their size; 0 on a CPU."""
    how: str
    """In words."""


def rates_of(gpu: str | None) -> Rates:
    """The rates of a GPU by its name, of this machine's, or of its CPU.

    A GPU of this machine whose limits are not known gets those of another: the plan says so, and
    what it plans runs.

    Raises:
        InputError: a name that is given and not known.
    """
    found = _gpu_here()
    if gpu is None and found is None:
        return _cpu()
    name, memory = found if gpu is None else (gpu.lower(), None)
    key = next((known for known in GPUS if known in name.replace(" ", "").lower()), None)
    if key is None and gpu is not None:
        raise InputError(f"--gpu {name}: no limits are known of it; choose of {', '.join(GPUS)}")
    known, key = key is not None, key or GUESSED
    limits = GPUS[key]
    forward, update = (share * limits.tflops * 1e12 for share in (FORWARD_SHARE, UPDATE_SHARE))
    decode = DECODE_SHARE * limits.terabytes * 1e12  # 2 operations a weight of 2 bytes
    how = ON_AN_H200
    if not known:
        guess = "times are a guess" if memory else "times and memory are a guess"
        how = f"not known, so {guess}: those of {key}, {how}"
    launching = LAUNCHING
    if known and MEASURED.is_file() and key in str(read_json(MEASURED)["parts"]["machine"]).lower():
        forward, update, decode, commit = measured_rates(read_json(MEASURED))
        launching = 0  # by graphs, whose kernels the host does not launch
        how = f"measured by benchmarks.gpu, {MEASURED}, commit {commit[:10]}"
    return Rates(
        "cuda", key if known else name, forward, update, update, decode, 16 * decode,
        memory or 0.97 * limits.gigabytes * 1e9, launching, how,
    )  # fmt: skip


def measured_rates(result: dict) -> tuple[float, float, float, str]:
    """Operations a second of forwards, updates and vanilla decoding, and the commit, from the file
    that benchmarks.gpu wrote."""
    parts = result["parts"]
    # a step reads all weights, and does 2 operations for each weight of 2 bytes
    step = parts["decoding"]["compiled"]["vanilla"]["step_seconds"]
    return (
        parts["forwards"]["tflops"] * 1e12,
        parts["training"]["update"]["tflops"] * 1e12,
        parts["decoding"]["weights_gb"] * 1e9 / step,
        parts["machine"]["git_commit"] or "not stated",
    )


def _gpu_here() -> tuple[str, float | None] | None:
    """Name and free memory in bytes of this machine's first GPU; None: it does not say how much."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=name,memory.free", "--format=csv,noheader,nounits"]
    answer = subprocess.run(query, capture_output=True, text=True).stdout.splitlines()
    if not answer:
        return None
    name, free = answer[0].split(", ")
    return name, float(free) * 2**20 if free.isdigit() else None


def _cpu() -> Rates:
    """Measured by numpy's product on one core, by the time of the processor: what else runs on the
    machine now does not count."""
    cores = os.cpu_count() or 1
    product = _product_rate() * cores
    meminfo = Path("/proc/meminfo")
    free = float("inf")
    if meminfo.is_file():
        lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
        free = 1024 * int(lines["MemAvailable"].split()[0])
    return Rates(
        "cpu", f"{cores} cores", FORWARD_OF_PRODUCT * product, UPDATE_OF_PRODUCT * product,
        HEAD_OF_PRODUCT * product, DECODE_OF_PRODUCT * product, BATCH_OF_PRODUCT * product, free, 0,
        f"a product measured here, {product / 1e9:,.0f} GFLOP/s, and the shares of it that the "
        "default run of November 2026 reached (commit cbd34d1)",
    )  # fmt: skip


def _product_rate() -> float:
    """Operations a second of one core in numpy's float32 product, the best of some.

    In a process of its own, because numpy reads the number of threads when it is imported.
    """
    program = f"""
import time, numpy
matrix = numpy.random.default_rng(0).random(({PRODUCT}, {PRODUCT}), dtype=numpy.float32)
seconds = []
for _ in range(8):
    started = time.process_time()
    matrix @ matrix
    seconds.append(time.process_time() - started)
print(min(seconds))
"""
    one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    answer = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | one, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return 2 * PRODUCT**3 / float(answer.stdout)
