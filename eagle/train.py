"""Train an EAGLE-1 draft: the command of the upstream tutorial.

    torchrun --nnodes=1 --nproc_per_node=1 eagle/train.py \\
        --verifier-model-path resources/verifier --dataset-path resources/sharegpt.jsonl \\
        --cpdir resources/checkpoints --epochs 1 --attn sdpa

The finished drafts are CPDIR/<run>/best and CPDIR/<run>/last. <run> is a hash of all that decides
the result, so the same command, started again, goes on where it was stopped.
"""

import gc
import os
import signal
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

if __name__ == "__main__":  # started as a file: its own folder would be searched before packages
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from eagle.lifetime import end_in_one_line, end_with_torchrun

    end_in_one_line("train", os._exit)
    end_with_torchrun()  # before torch is imported, which takes seconds

import torch

from eagle.checksums import checked, identity
from eagle.config import TrainConfig, parse_command
from eagle.draft.checkpoint import draft_hash
from eagle.errors import InputError, one_clear_message
from eagle.tracking import tracker_of
from eagle.training.build import build_trainer, new_draft
from eagle.training.determinism import deterministic
from eagle.training.distributed import (
    gather,
    local_rank_and_world,
    process_group,
    rank_and_world,
)
from eagle.training.documents import check_vocabulary, load_documents
from eagle.training.run_folder import RunFolder, code_hash
from eagle.training.run_identity import initial_draft, sha256_of_text
from eagle.verifier.verifier import Verifier


def train(config: TrainConfig) -> Path | signal.Signals:
    """Run this process's part of the training.

    Returns:
        The run folder with best, last, metrics.json, provenance.json, history.csv and
        validations.csv; or the signal that ended it early, with its state saved.

    Raises:
        InputError: something in the config cannot be used.
    """
    with deterministic(config.deterministic), process_group() as device:
        try:
            return _train(config, device)
        except torch.cuda.OutOfMemoryError as error:
            raise InputError(
                f"the GPU's memory is full ({str(error).splitlines()[0]}); lower "
                "--micro-batch-size and raise --gradient-accumulation-steps by the same factor, "
                "or lower --maximum-model-length"
            ) from None


def _train(config: TrainConfig, device: torch.device) -> Path | signal.Signals:
    rank, world = rank_and_world()
    sharded = config.verifier_sharding == "fsdp2"
    if sharded and world == 1:
        raise InputError(
            "--verifier-sharding = fsdp2: there is one process to shard over; start more "
            "(--nproc_per_node, machine.processes) or leave the sharding out"
        )
    dtype = getattr(torch, config.verifier_model_dtype)
    attn = "eager" if config.attn == "eager" else "sdpa"  # `new_draft` may have it packed later
    with _inputs_checked(config):
        documents = load_documents(config)
        verifier = Verifier.load(config.verifier_model_path, dtype, device, attn, sharded)
        check_vocabulary(config, documents.train, len(verifier.embedding))
        config, draft = new_draft(config, verifier)
    inputs = {
        "verifier": identity(config.verifier_model_path),
        "data": documents.sha256,
        "draft_config": sha256_of_text(draft.config.to_json_string()),
        "code": code_hash(Path(__file__)),
    }
    if folder := initial_draft(config):
        inputs["initial_draft"] = draft_hash(folder)
    run = RunFolder.of(config, inputs)
    with run.held(config.invocation):
        if gather(run.finished())[0]:  # as rank 0 found it
            if rank == 0:
                print(f"train: {run.path} has finished before and is not trained again", flush=True)
            return run.path
        with tracker_of(
            config.clearml_project, config.clearml_task, run.parameters, config.cpdir / "clearml"
        ) as tracker:
            trainer = build_trainer(
                config, draft, verifier, inputs["verifier"], documents.train, documents.validation,
                run.path, tracker,
            )  # fmt: skip
            finished = trainer.run()
        ended_by = trainer.ended_by or signal.SIGTERM  # which another process may have had
        if rank == 0 and finished:
            run.write_results(trainer.metrics(), trainer.seconds)
            print(f"train: wrote {run.path}", flush=True)
        elif rank == 0:
            print(
                f"train: ended by {ended_by.name} after update "
                f"{trainer.state.update}; the same command goes on from there ({run.path})",
                file=sys.stderr,
                flush=True,
            )
    return run.path if finished else ended_by


def _inputs_checked(config: TrainConfig) -> AbstractContextManager[None]:
    """Compare all files that are read with their hashes; one process of each machine does it."""
    if local_rank_and_world()[0] != 0:
        return nullcontext()
    folder = initial_draft(config)
    drafts = [folder] if folder else []
    return checked(config.verifier_model_path, config.dataset_path, *drafts)


if __name__ == "__main__":
    # The collector need not look at what was imported again, not even at the end, where that would
    # take a second.
    gc.freeze()
    with one_clear_message():
        ended = train(parse_command(TrainConfig, sys.argv[1:], "eagle/train.py"))
        sys.exit(0 if isinstance(ended, Path) else 128 + ended)
