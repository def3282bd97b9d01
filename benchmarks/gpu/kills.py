"""A run that is killed three times ends in the weights of one that is not."""

import multiprocessing
import random
import tempfile
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

from benchmarks.gpu.models import random_documents, random_verifier
from benchmarks.gpu.part import Report
from benchmarks.gpu.scale import Scale
from benchmarks.train_throughput import make_config
from eagle.files import sha256_of_file
from eagle.tracking import NullTracker
from eagle.training.build import build_trainer, new_draft
from eagle.training.determinism import deterministic
from eagle.training.on_disk import find_states

KILLS = 3
WEIGHTS = "last/model.safetensors"


def measure_kills(scale: Scale, report: Report) -> None:
    """Kill the run at three of its updates; each start is a new process that goes on."""
    with tempfile.TemporaryDirectory() as home:
        whole, killed = (Path(home) / name for name in ("whole", "killed"))
        for folder in (whole, killed):
            folder.mkdir()
        end(start(scale, whole))
        generator = random.Random(0)
        at = []
        for kill in range(1, KILLS + 1):
            process = start(scale, killed)
            while updates_in(killed) < kill * scale.killed // (KILLS + 1):
                if not process.is_alive():
                    raise RuntimeError(f"training ended with {process.exitcode} before kill {kill}")
                time.sleep(0.001)
            time.sleep(generator.uniform(0, 0.05))
            process.kill()
            process.join()
            at.append(updates_in(killed))
        if (killed / WEIGHTS).exists():
            raise RuntimeError("training was over before the last kill")
        end(start(scale, killed))
        hashes = [sha256_of_file(folder / WEIGHTS) for folder in (whole, killed)]
    report(updates=scale.killed, states_at_the_kills=at, sha256=hashes)
    report(identical=hashes[0] == hashes[1])


def start(scale: Scale, folder: Path) -> BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=train, args=(scale, folder))
    process.start()
    return process


def end(process: BaseProcess) -> None:
    process.join()
    if process.exitcode:
        raise RuntimeError(f"training ended with {process.exitcode}")


def updates_in(folder: Path) -> int:
    """Updates of the newest state."""
    return max((int(path.name.split("-")[1]) for path in find_states(folder)), default=0)


def train(scale: Scale, folder: Path) -> None:
    """Begin, or go on from the folder's newest state, with deterministic algorithms."""
    with deterministic(True):
        verifier = random_verifier(scale.small, scale.device)
        batches = 8
        tokens = random_documents(batches * scale.batch, scale.small["vocab_size"], scale.longest)
        config = make_config(
            epochs=-(-scale.killed // batches), micro_batch_size=scale.batch, features="replay",
            replay_passes=2, replay_documents=len(tokens), num_training_steps=scale.killed,
            save=max(1, scale.killed // 20),
        )  # fmt: skip
        build_trainer(
            *new_draft(config, verifier), verifier, "", tokens, tokens.part(0, 1), folder,
            NullTracker(),
        ).run()  # fmt: skip
