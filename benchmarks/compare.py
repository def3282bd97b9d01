"""Whether this checkout trains and decodes slower than another one, by CPU time, in alternation.

    git worktree add ../before COMMIT
    python -m benchmarks.compare ../before    # after `make repro`

A process of each checkout has its models in memory, on one thread. They take turns: each trains a
few documents, or answers one question with one decoder, before the other does the same. What counts
is the CPU time that a process used, because the time on the clock is also that of whatever else
runs; and of each piece of work the least over rounds, because others in the same caches and cores
can only add to it. The models and data are those of this checkout. Prints the speed after over the
speed before, in brackets the least and the largest of single rounds, and where the two wrote other
texts or had other tokens accepted. transformers' own `generate` is the same code in both, so its
line shows what the machine alone does to a ratio.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from benchmarks.compare_worker import SHAPES
from benchmarks.decode_speed import read_prompts

INPUTS = ("resources", "models")
WAYS = ("cache, whole", "cache, reduced", "replay 2, reduced")
DECODERS = ("transformers.generate", "vanilla", *SHAPES)


class Worker:
    """A process that does jobs with the code of a checkout."""

    def __init__(self, checkout: Path, folder: Path):
        """Start it in an empty folder."""
        for name in INPUTS:
            (folder / name).symlink_to(Path(name).resolve())
        (folder / "params.yaml").symlink_to((checkout / "params.yaml").resolve())
        script = Path(__file__).with_name("compare_worker.py")
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", str(script)], cwd=folder, text=True,
                env=os.environ | {"PYTHONPATH": str(checkout.resolve()), "OMP_NUM_THREADS": "1"},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_) -> None:
        self.process.stdin.close()
        self.process.wait()

    def do(self, job: dict) -> tuple[float, list | None]:
        """CPU seconds of a job, and the text that it wrote."""
        print(json.dumps(job), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{job} ended the process:\n{self.log.read_text()[-2000:]}")
        found = json.loads(answer)
        return found["seconds"], found["text"]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("before", type=Path, help="folder of the other checkout")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--documents", type=int, default=8, help="that are trained on; 0: none")
    options.add_argument("--questions", type=int, default=4, help="that are answered")
    options.add_argument("--tokens", type=int, default=32, help="of each answer")
    options.add_argument("--only", default="", help="lines whose names have this in them")
    arguments = options.parse_args()
    prompts = read_prompts(arguments.questions)
    jobs = {
        f"decode: {name}": [
            {"decoder": name, "prompt": prompt, "tokens": arguments.tokens} for prompt in prompts
        ]
        for name in DECODERS
    }
    if arguments.documents:
        jobs |= {f"train: {w}": [{"way": w, "documents": arguments.documents}] for w in WAYS}
    jobs = {name: tasks for name, tasks in jobs.items() if arguments.only in name}
    rounds: dict[str, list[np.ndarray]] = defaultdict(list)  # each [2 checkouts, tasks]
    differing: set[str] = set()
    with ExitStack() as stack:
        workers = [
            stack.enter_context(Worker(checkout, Path(stack.enter_context(_folder()))))
            for checkout in (arguments.before, Path("."))
        ]
        for number in range(-1, arguments.rounds):  # the first one warms up
            for name, tasks in jobs.items():
                seconds, same = _turns(workers, tasks, number % 2 == 0)
                if number >= 0:
                    rounds[name].append(seconds)
                if not same:
                    differing.add(name)
    for name, measured in rounds.items():
        before, after = np.min(measured, axis=0).sum(-1)
        single = [np.divide(*seconds.sum(-1)) for seconds in measured]
        said = "other texts" if name in differing else ""
        print(f"{name:<32} {before / after:.3f}  ({min(single):.3f} to {max(single):.3f})  {said}")


def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="compare-")


def _turns(workers: list[Worker], tasks: list[dict], swapped: bool) -> tuple[np.ndarray, bool]:
    """CPU seconds of both workers for each task [2, tasks], and whether the texts are the same."""
    seconds, same = np.zeros((2, len(tasks))), True
    for number, task in enumerate(tasks):
        texts = {}
        for which in (1, 0) if swapped else (0, 1):
            seconds[which, number], texts[which] = workers[which].do(task)
        same = same and texts[0] == texts[1]
        swapped = not swapped
    return seconds, same


if __name__ == "__main__":
    main()
