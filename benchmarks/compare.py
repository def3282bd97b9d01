"""Whether this checkout trains and decodes slower than another one, in alternation.

    git worktree add ../before COMMIT
    python -m benchmarks.compare ../before    # after `make repro`; about six minutes a round

Both run `train_throughput` and `decode_speed` on the models and data of this checkout, each with
its own params.yaml, one after the other in each round, so that whatever slows the machine slows
both alike. Prints the speed after over the speed before: the median over rounds, the least and the
largest. transformers' own `generate` is the same code in both, so its ratio shows how quiet the
machine was.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median

from eagle.files import read_json

INPUTS = ("resources", "models")
WAYS = ("cache, whole", "cache, reduced", "replay 4, reduced")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("before", type=Path, help="folder of the other checkout")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--documents", type=int, default=12, help="that are trained on")
    options.add_argument("--questions", type=int, default=8, help="that are answered")
    arguments = options.parse_args()
    ratios: dict[str, list[float]] = defaultdict(list)
    for _ in range(arguments.rounds):
        before, after = (
            speeds(checkout, arguments.documents, arguments.questions)
            for checkout in (arguments.before, Path("."))
        )
        for name in before.keys() & after.keys():
            ratios[name].append(after[name] / before[name])
    for name, found in sorted(ratios.items()):
        print(f"{name:<32} {median(found):.3f}  ({min(found):.3f} to {max(found):.3f})")


def speeds(checkout: Path, documents: int, questions: int) -> dict[str, float]:
    """Tokens a second of each way of training and each decoder in the code of a checkout."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in INPUTS:
            (Path(folder) / name).symlink_to(Path(name).resolve())
        (Path(folder) / "params.yaml").symlink_to((checkout / "params.yaml").resolve())
        (Path(folder) / "benchmarks/results").mkdir(parents=True)

        def run(*command: str) -> str:
            return subprocess.run(
                [sys.executable, "-m", *command], cwd=folder, text=True, check=True,
                env=os.environ | {"PYTHONPATH": str(checkout.resolve())}, stdout=subprocess.PIPE,
            ).stdout  # fmt: skip

        for way in WAYS:
            printed = run(
                "benchmarks.train_throughput", "--documents", str(documents), "--way", way
            )
            row = json.loads(printed.splitlines()[-1])
            found[f"train: {way}"] = row["masked_tokens_per_second"]
        run("benchmarks.decode_speed", "--questions", str(questions), "--tokens", "32")
        decoders = read_json(Path(folder) / "benchmarks/results/decode_speed.json")["decoders"]
        for name, row in decoders.items():
            if name != "auto":  # may be another shape each time
                found[f"decode: {name}"] = row["tokens_per_second"]
    return found


if __name__ == "__main__":
    main()
