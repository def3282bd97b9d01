"""What the machine can do at most: one large product, one large copy."""

import torch

from benchmarks.gpu.clock import seconds_of
from benchmarks.gpu.part import Report
from benchmarks.gpu.scale import Scale
from eagle.provenance import provenance

ROUNDS = 20


def measure_machine(scale: Scale, report: Report) -> None:
    """Hardware, versions and commit."""
    source = provenance({}, {}, 0.0)
    report(**{name: source[name] for name in ("hardware", "packages", "git_commit", "git_dirty")})


def measure_ceilings(scale: Scale, report: Report) -> None:
    """bfloat16 products in TFLOP/s; bytes copied in TB/s, of which each is read and written."""
    size, device = scale.product, scale.device
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    a @ b
    seconds = seconds_of(lambda: [a @ b for _ in range(ROUNDS)], device)
    report(product_tflops=ROUNDS * 2 * size**3 / seconds / 1e12)
    source = torch.zeros(scale.copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    seconds = seconds_of(lambda: [target.copy_(source) for _ in range(ROUNDS)], device)
    report(copy_tb_per_second=ROUNDS * 2 * source.nbytes / seconds / 1e12)
