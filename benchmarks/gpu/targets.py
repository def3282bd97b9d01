"""What the project means to reach on one H100 or H200, and whether a run reached it."""

from collections.abc import Callable
from typing import NamedTuple

from benchmarks.gpu.decoding import PAPERS_TAU


class Target(NamedTuple):
    name: str
    bound: float
    at_least: bool
    measured: Callable[[dict], float]
    """From the parts' results by name. A KeyError or TypeError means that it was not measured."""


def at_least(name: str, bound: float, measured: Callable[[dict], float]) -> Target:
    return Target(name, bound, True, measured)


def at_most(name: str, bound: float, measured: Callable[[dict], float]) -> Target:
    return Target(name, bound, False, measured)


def _share_of_products(part: str, *keys: str) -> Callable[[dict], float]:
    def measured(parts: dict) -> float:
        found = parts[part]
        for key in keys:
            found = found[key]
        return found["tflops"] / parts["ceilings"]["product_tflops"]

    return measured


def _rate(parts: dict, way: str) -> float:
    return parts["training"][way]["masked_tokens_per_second"]


def _over_vanilla(shape: str) -> Callable[[dict], float]:
    return lambda parts: parts["decoding"]["compiled"][shape]["over_a_vanilla_step"]


def _vanilla_share(parts: dict) -> float:
    decoding = parts["decoding"]
    limit = decoding["weights_gb"] / 1000 / parts["ceilings"]["copy_tb_per_second"]
    return limit / decoding["compiled"]["vanilla"]["step_seconds"]


TREE = "mc_sim_7b_63"
TARGETS = (
    at_least("update / product rate", 0.60, _share_of_products("training", "update")),
    at_least("verifier's forwards / product rate", 0.65, _share_of_products("forwards")),
    at_least("replay 4 / plain way", 5.0, lambda p: _rate(p, "replay 4") / _rate(p, "plain")),
    at_least("replay 4, trained tokens a second", 60_000, lambda p: _rate(p, "replay 4")),
    at_most("states every ten minutes, cost", 0.02, lambda p: p["saving"]["share_of_ten_minutes"]),
    at_most("peak memory at 8 x 2048, GB", 80.0, lambda p: p["memory"]["measured_gb"]),
    at_most("memory, estimate's error", 0.15, lambda p: abs(p["memory"]["estimate_error"])),
    at_least("vanilla / bandwidth limit", 0.75, _vanilla_share),
    at_most(f"{TREE} / vanilla step", 1.35, _over_vanilla(TREE)),
    at_most("chain of 4 / vanilla step", 1.25, _over_vanilla("chain of 4")),
    at_least(
        f"{TREE}, speed-up at tau {PAPERS_TAU}", 2.6, lambda p: PAPERS_TAU / _over_vanilla(TREE)(p)
    ),
    at_least("weights after kills identical", 1, lambda p: p["kills"]["identical"]),
    at_least(
        "decoders lossless in float32",
        1,
        lambda p: all(
            row["lossless"] and (row["tau"] > 1 or name == "vanilla")
            for name, row in p["lossless"].items()
            if isinstance(row, dict)
        ),
    ),
    at_most("host waits in an update", 0, lambda p: p["waits"]["update"]["waits"]),
    at_most("host waits in a vanilla step", 1, lambda p: p["waits"]["vanilla"]["waits"]),
    at_most(f"host waits in a {TREE} step", 1, lambda p: p["waits"][TREE]["waits"]),
    at_most("tests for GPUs that failed", 0, lambda p: p["tests"]["failed"]),
)


def check_targets(parts: dict) -> list[dict]:
    """Each target beside what was measured; `met` is None where nothing was."""
    rows = []
    for name, bound, least, measured in TARGETS:
        try:
            value = float(measured(parts))
        except (KeyError, TypeError):
            value = met = None
        else:
            met = value >= bound if least else value <= bound
        rows.append(
            {"target": name, "bound": f"{'>=' if least else '<='} {bound:g}", "value": value}
            | {"met": met}
        )
    return rows
