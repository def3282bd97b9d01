"""Where an update's time goes, by kind of kernel, and how long the device is busy."""

import re
from collections import defaultdict

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.clock import seconds_of
from benchmarks.gpu.models import random_documents, random_verifier
from benchmarks.gpu.part import Report
from benchmarks.gpu.scale import Scale
from benchmarks.gpu.training import trainer_of

# Names of kernels on a GPU, and of operators on a CPU. The first that fits counts.
KINDS = {
    "attention": r"flash|fmha|attention|cudnn.*sdpa",
    "products": r"gemm|nvjet|cutlass|cublas|xmma|splitK|aten::(add)?mm|aten::bmm|mkldnn|matmul",
    "optimizer": r"adam",
    "casts and copies": r"copy|CatArray|aten::(_to_copy|cat)",
    "transfers": r"Memcpy|Memset",
    "elementwise": r"elementwise|reduce|triton|softmax|index|gather|scatter|multi_tensor|aten::",
}
WARM, PROFILED, NAMED = 12, 4, 12
"""Updates before those that are profiled, their number, and the kernels that are named."""


def measure_kernels(scale: Scale, report: Report) -> None:
    """Shares of the busy time of some updates whose features are in memory.

    The same updates run twice, because the host is slower when it is profiled: with the clock, then
    with the profiler.
    """
    verifier = random_verifier(scale.verifier, scale.device)
    tokens = random_documents(scale.buffer, scale.verifier["vocab_size"], scale.longest)
    passes = 1 + (WARM + PROFILED) * scale.batch // len(tokens)
    kind = ProfilerActivity.CPU if scale.toy else ProfilerActivity.CUDA
    with trainer_of(scale, verifier, tokens, "replay", passes) as trainer:

        def updates(first: int, count: int) -> None:
            for update in range(first, first + count):
                trainer._update(update)

        updates(0, WARM)
        seconds = seconds_of(lambda: updates(WARM, PROFILED), scale.device)
        with profile(activities=[kind]) as profiled:
            seconds_of(lambda: updates(WARM, PROFILED), scale.device)  # waits for the device
    found = shares(profiled, DeviceType.CPU if scale.toy else DeviceType.CUDA)
    milliseconds = 1000 * seconds / PROFILED
    busy_share = found["busy_milliseconds"] / milliseconds
    report(update_milliseconds=milliseconds, busy_share=busy_share, **found)


def shares(profiled: profile, device: DeviceType) -> dict:
    """Busy milliseconds an update, shares of them by kind, and the longest kernels by name."""
    kinds: dict[str, float] = defaultdict(float)
    names: dict[str, float] = defaultdict(float)
    spans = []
    for event in profiled.events():
        if event.device_type != device or event.is_user_annotation:
            continue
        taken = event.time_range.elapsed_us()
        if device == DeviceType.CPU:  # an operator's time contains that of those which it calls
            taken = event.self_cpu_time_total
        kinds[kind_of(event.name)] += taken
        names[event.name] += taken
        spans.append((event.time_range.start, event.time_range.end))
    longest = sorted(names, key=names.get, reverse=True)[:NAMED]
    total = sum(kinds.values())
    return {
        "busy_milliseconds": covered(spans) / 1000 / PROFILED,
        "shares": {kind: taken / total for kind, taken in sorted(kinds.items())},
        "longest": {name[:100]: names[name] / total for name in longest},
    }


def kind_of(kernel: str) -> str:
    fits = (kind for kind, names in KINDS.items() if re.search(names, kernel, re.IGNORECASE))
    return next(fits, "other")


def covered(spans: list[tuple[float, float]]) -> float:
    """The length of the time in which at least one of the spans runs."""
    length, reached = 0.0, 0.0
    for start, end in sorted(spans):
        length += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return length
