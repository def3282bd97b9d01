"""The first updates of the default in bfloat16 on a GPU against float32 on the CPU, and a profile.

    python -m benchmarks.precision          # after `make repro`: its verifier and tokens

The documents and their order are the same and there is no noise, so that only precision and device
differ. Without a GPU the CPU's bfloat16 takes its place, and the result says so. The profile shows
where an update's time goes on the faster side. Writes benchmarks/results/precision_<device>.json.
"""

import argparse
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from torch.profiler import profile

from eagle.config import TrainConfig, load_params
from eagle.files import sha256_of_folder, write_json
from eagle.provenance import provenance
from eagle.tokens.token_set import TokenSet
from eagle.tracking import NullTracker
from eagle.training.build import build_trainer, new_draft
from eagle.training.trainer import Trainer
from eagle.verifier.verifier import Verifier
from scripts.train import train_config

VERIFIER, TOKENS = Path("resources/verifier"), Path("resources/tokens/train.safetensors")
RESULTS = Path("benchmarks/results")
ROWS = 12  # of the profile


def make_trainer(device: torch.device, dtype: str, updates: int, folder: Path) -> Trainer:
    """The shipped recipe's trainer without noise, on the documents of the first updates."""
    params = load_params()
    tokens = TokenSet.load(TOKENS).part(0, updates * params.train.global_batch_size)
    verifier = Verifier.load(VERIFIER, getattr(torch, dtype), device)
    dtypes = ("verifier_model_dtype", "verifier_model_lm_head_dtype", "eagle_dtype")
    config = TrainConfig(
        **train_config(params).model_dump()
        | dict.fromkeys(dtypes, dtype)
        | {"mixed_precision": "none", "noise_low": 0.0, "noise_high": 0.0}
        | {"epochs": 1, "features": "replay", "replay_passes": 1, "save": 10**9}
    )
    return build_trainer(
        *new_draft(config, verifier), verifier, sha256_of_folder(VERIFIER),
        tokens, tokens.part(0, 1), folder, NullTracker(),
    )  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--updates", type=int, default=100)
    arguments = options.parse_args()
    started = time.monotonic()
    cpu = torch.device("cpu")
    other = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    losses = {}
    for name, device, dtype in (("exact", cpu, "float32"), ("fast", other, "bfloat16")):
        with tempfile.TemporaryDirectory() as folder:
            trainer = make_trainer(device, dtype, arguments.updates, Path(folder))
            with profile() if name == "fast" else nullcontext() as profiled:
                trainer.run()
            losses[name] = [row["loss"] for row in trainer.state.history]
    differences = [
        abs(fast - exact) / exact
        for exact, fast in zip(losses["exact"], losses["fast"], strict=True)
    ]
    result = {
        "updates": arguments.updates,
        "fast_side": f"bfloat16 on {other.type}",
        "largest_relative_difference": max(differences),
        "mean_relative_difference": sum(differences) / len(differences),
        "losses": losses,
        **provenance({}, {}, time.monotonic() - started),
    }
    key = "self_device_time_total" if other.type == "cuda" else "self_cpu_time_total"
    print(profiled.key_averages().table(sort_by=key, row_limit=ROWS))
    write_json(RESULTS / f"precision_{other.type}.json", result)
    mean = result["mean_relative_difference"]
    print(
        f"{result['fast_side']}: loss off by {max(differences):.2%} at most, {mean:.2%} on average"
    )


if __name__ == "__main__":
    main()
