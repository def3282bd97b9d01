"""Stage train: start torchrun on eagle/train.py, and move its drafts and results into place."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from eagle.config import Params, Recipe, TrainConfig, flags_of, load_params
from eagle.errors import InputError, one_clear_message
from eagle.files import whole_folder
from eagle.tracking import say_written

PROGRAM = Path("eagle/train.py")  # started, not imported: importing would load torch needlessly
VERIFIER = Path("resources/verifier")
TOKENS = Path("resources/tokens")
RUNS = Path("runs")
FINISHED = RUNS / "finished"
DRAFT = Path("models/draft")
RESULTS = Path("results/train")
# Seconds that training has after SIGTERM to finish its update, before SIGKILL.
LONGEST_UPDATE = 600


def main() -> None:
    started = time.monotonic()
    params = load_params()
    torchrun(params.machine.processes, flags_of(train_config(params)))
    # one rename each, within the file system
    with whole_folder(DRAFT) as drafts:
        for name in ("best", "last"):
            (FINISHED / name).rename(drafts / name)
    with whole_folder(RESULTS) as results:
        for path in FINISHED.iterdir():
            path.rename(results / path.name)
    FINISHED.rmdir()
    say_written("train", started, DRAFT, RESULTS)


def train_config(params: Params) -> TrainConfig:
    """The config of eagle/train.py for the `train` section on this machine.

    Raises:
        InputError: processes and accumulation steps do not divide the global batch.
    """
    train, machine = params.train, params.machine
    slots = machine.processes * machine.gradient_accumulation_steps
    if train.global_batch_size % slots:
        raise InputError(
            f"train.global_batch_size = {train.global_batch_size} cannot be divided among "
            f"{machine.processes} processes x {machine.gradient_accumulation_steps} accumulation "
            "steps; raise train.global_batch_size to a multiple of them, or change machine.*"
        )
    recipe = train.model_dump(include=set(Recipe.model_fields))
    ticks = machine.processes  # the tutorial's schedule counts updates x processes
    return TrainConfig(
        **recipe,
        verifier_model_path=VERIFIER,
        dataset_path=TOKENS,
        cpdir=RUNS,
        output=FINISHED,
        micro_batch_size=train.global_batch_size // slots,
        gradient_accumulation_steps=machine.gradient_accumulation_steps,
        num_warmup_steps=train.warmup_updates * ticks,
        num_training_steps=train.max_updates and train.max_updates * ticks,
        maximum_model_length=params.tokens.maximum_model_length,
        save=machine.save_updates,
        verifier_sharding=machine.verifier_sharding,
        peak_tflops=machine.peak_tflops,
        clearml_task=f"{machine.processes}processes-{train.global_batch_size}globalbs",
        progress_seconds=machine.progress_seconds,
    )


def torchrun(processes: int, flags: list[str]) -> None:
    """Run eagle/train.py in `processes` processes on this machine.

    SIGTERM is passed on: training saves its state after its current update, and this process ends
    with exit code 143.

    Raises:
        InputError: training failed; it has printed its own message.
    """
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nnodes=1",
        f"--nproc_per_node={processes}", f"--shutdown-timeout={LONGEST_UPDATE}",
        str(PROGRAM), *flags,
    ]  # fmt: skip
    terminated: list[int] = []

    def terminate(number: int, _frame: object) -> None:
        terminated.append(number)
        launcher.terminate()

    launcher = subprocess.Popen(command, env={"OMP_NUM_THREADS": threads} | os.environ)
    signal.signal(signal.SIGTERM, terminate)
    code = launcher.wait()
    if terminated:
        sys.exit(128 + signal.SIGTERM)  # as a shell reports it
    if code:
        raise InputError(
            f"training ended with exit code {code}; the line above that begins with `error:` says "
            "what went wrong. Nothing was published; start it again to go on from the last state "
            f"in {RUNS}/"
        )


if __name__ == "__main__":
    with one_clear_message():
        main()
