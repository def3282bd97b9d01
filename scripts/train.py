"""Stage train: start torchrun on eagle/train.py, and publish the drafts and results of that run."""

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

from eagle import slurm
from eagle.checksums import check
from eagle.command_line import run_stage
from eagle.config import Params, Recipe, Train, TrainConfig, flags_of, load_params
from eagle.errors import InputError
from eagle.file_lock import file_lock
from eagle.files import CHECKSUMS, entries, read_json, whole_folder
from eagle.lifetime import ended_by
from eagle.tracking import say_written
from eagle.training.run_identity import (
    CHOSEN_BY_TRAINING,
    DRAFT_FOLDERS,
    RESULT_FILES,
    run_name,
    run_parameters,
)

PROGRAM = Path("eagle/train.py")  # started, not imported: importing would load torch needlessly
VERIFIER = Path("resources/verifier")
TOKENS = Path("resources/tokens")
RUNS = Path("runs")
DRAFT = Path("models/draft")
RESULTS = Path("results/train")
# Of global_batch_size: auto.
LARGEST_BATCH, FEWEST_UPDATES = 16, 500
# Seconds that training has after SIGTERM to finish its update, before SIGKILL.
LONGEST_UPDATE = 600
ANEW = f"Nothing was published; start it again to go on from the last state in {RUNS}/"


def main() -> None:
    started = time.monotonic()
    params = load_params()
    processes, config = params.machine.processes, train_config(params)
    if params.train.global_batch_size == "auto":
        batch = config.micro_batch_size * config.gradient_accumulation_steps * processes
        print(f"train: global_batch_size auto is {batch}, for the conversations there", flush=True)
    torchrun(processes, flags_of(config))
    publish(config, processes)
    say_written("train", started, DRAFT, RESULTS)


def train_config(params: Params) -> TrainConfig:
    """The config of eagle/train.py for the `train` section on this machine."""
    train, machine = params.train, params.machine
    batch = global_batch_size(train)
    slots = machine.processes * machine.gradient_accumulation_steps
    recipe = train.model_dump(include=set(Recipe.model_fields))
    ticks = machine.processes  # the tutorial's schedule counts updates x processes
    return TrainConfig(
        **recipe,
        verifier_model_path=VERIFIER,
        dataset_path=TOKENS,
        cpdir=RUNS,
        invocation=uuid.uuid4().hex,
        micro_batch_size=batch // slots,
        gradient_accumulation_steps=machine.gradient_accumulation_steps,
        num_warmup_steps=train.warmup_updates * ticks,
        num_training_steps=train.max_updates and train.max_updates * ticks,
        maximum_model_length=params.tokens.maximum_model_length,
        save=machine.save_updates,
        save_minutes=machine.save_minutes,
        verifier_sharding=machine.verifier_sharding,
        peak_tflops=machine.peak_tflops,
        clearml_task=f"{machine.processes}processes-{batch}globalbs",
        progress_seconds=machine.progress_seconds,
    )


def global_batch_size(train: Train) -> int:
    """Conversations in an update, of as many as tokenize_dataset left where it is `auto`.

    It does not depend on the machine, which must not change what is trained.

    Raises:
        InputError: it is `auto`, and there are no tokens.
    """
    if train.global_batch_size != "auto":
        return train.global_batch_size
    return automatic_batch(read_json(TOKENS / "manifest.json")["train"]["documents"])


def automatic_batch(conversations: int) -> int:
    """What train.global_batch_size is where it is `auto`, for so many to train on."""
    batch = LARGEST_BATCH
    while batch > 1 and conversations < batch * FEWEST_UPDATES:
        batch //= 2
    return batch


def torchrun(processes: int, flags: list[str]) -> None:
    """Run eagle/train.py in `processes` processes: on this machine, or spread over the nodes of the
    SLURM job whose script this is.

    A signal that ends this process is passed on as SIGTERM: training saves its state after its
    current update. SLURM may send SIGTERM to training alone; this process then ends with exit code
    143 too.

    Raises:
        InputError: training failed; it has printed its own message.
    """
    if slurm.in_batch_script():
        local, cpus = slurm.processes_a_node(processes), slurm.cpus_on_first_node()
        started_by, parent, meeting = slurm.once_a_node(), "slurm", slurm.meeting()
    else:
        local, cpus = processes, os.cpu_count() or 1
        started_by, parent = [], str(os.getpid())
        # the machine's own name may lead nowhere, as in some containers
        meeting = ["--standalone", "--nnodes=1", "--local-addr=127.0.0.1"]
    command = [
        *started_by, sys.executable, "-m", "eagle.lifetime", parent,
        "torch.distributed.run", *meeting, f"--nproc_per_node={local}",
        f"--shutdown-timeout={LONGEST_UPDATE}", "--signals-to-handle=SIGTERM", str(PROGRAM), *flags,
    ]  # fmt: skip
    threads = str(max(1, cpus // local))
    # in a session of its own, where a terminal's Ctrl-C and its end do not reach it beside SIGTERM
    launcher = subprocess.Popen(
        command, env={"OMP_NUM_THREADS": threads} | os.environ, start_new_session=True
    )
    try:
        code = launcher.wait()
    except SystemExit:
        launcher.terminate()
        launcher.wait()
        raise
    if code < 0:
        raise InputError(f"torchrun was ended by {ended_by(-code)}. {ANEW}")
    if code == 128 + signal.SIGTERM:  # training has said what it saved
        sys.exit(code)
    if code:
        raise InputError(
            f"training ended with exit code {code}; the line above that begins with `error:` says "
            f"what went wrong. {ANEW}"
        )


def publish(config: TrainConfig, processes: int) -> None:
    """Copy the drafts and results of this invocation's run; both folders are complete or unchanged.

    They are copied, not moved or linked: the run's own stay as they are, whatever is done to the
    published ones, and can be published again.

    Raises:
        InputError: the run is not there, is not complete or damaged, or was trained with other
            parameters.
    """
    run = run_of(config.invocation)
    check_run(run, config, processes)
    check(run)
    with (
        file_lock(RUNS / "publication.lock", wait=True),
        whole_folder(DRAFT) as drafts,
        whole_folder(RESULTS) as results,
    ):
        for name in DRAFT_FOLDERS:
            shutil.copytree(run / name, drafts / name, ignore=shutil.ignore_patterns(CHECKSUMS))
        for name in RESULT_FILES:
            shutil.copyfile(run / name, results / name)


def run_of(invocation: str) -> Path:
    """The folder of the run that was trained for this invocation."""
    for run in entries(RUNS):
        if (note := run / "invocation").is_file() and note.read_text() == invocation:
            return run
    raise InputError(
        f"{RUNS}: no run there is this start's own; the same run was started once more meanwhile, "
        "or its folder was removed. Nothing was published; start again"
    )


def check_run(run: Path, config: TrainConfig, processes: int) -> None:
    """Raises: InputError: not all that is published is there, or it is of another run."""
    for name in (*DRAFT_FOLDERS, *RESULT_FILES):
        if not (run / name).exists():
            raise InputError(
                f"{run / name}: missing, so nothing was published; remove {run} and start again, "
                "to train anew"
            )
    source = read_json(run / "provenance.json")
    trained, asked = source["parameters"], run_parameters(config, processes)
    for name in CHOSEN_BY_TRAINING:  # training writes what it became
        if asked[name] in ("auto", "flash_attention_2"):
            asked[name] = trained[name]
    other = [name for name in trained | asked if trained.get(name) != asked.get(name)]
    if other or run_name(trained, source["inputs"]) != run.name:
        difference = (
            f"{other[0]} is {trained.get(other[0])} there, this start asked for "
            f"{asked.get(other[0])}"
            if other
            else "its parameters and inputs are not those of the run in this folder"
        )
        raise InputError(
            f"{run / 'provenance.json'}: {difference}. Nothing was published; remove {run} and "
            "start again, to train anew"
        )


if __name__ == "__main__":
    run_stage(main, __doc__)
