"""Losses in bfloat16 on the GPU against float32 on the CPU."""

import tempfile
from pathlib import Path

import torch

from benchmarks.gpu.models import half_right_pair, random_documents
from benchmarks.gpu.part import Report
from benchmarks.gpu.scale import Scale
from benchmarks.train_throughput import make_config
from eagle.tracking import NullTracker
from eagle.training.build import build_trainer, new_draft

BATCH, LONGEST = 4, 256
"""Documents in an update, and tokens of the longest: a CPU computes them too."""


def measure_precision(scale: Scale, report: Report) -> None:
    """Differences of the first updates' losses, relative to the exact ones.

    Verifier, first weights, documents and their order are the same, and there is no noise, so that
    only precision and device differ.
    """
    exact = losses(scale, torch.device("cpu"), torch.float32)
    fast = losses(scale, scale.device, torch.bfloat16)
    differences = [abs(a - b) / b for a, b in zip(fast, exact, strict=True)]
    report(
        updates=len(exact),
        first_loss=exact[0],
        last_loss=exact[-1],
        largest_relative_difference=max(differences),
        mean_relative_difference=sum(differences) / len(differences),
        exact=exact,
        fast=fast,
    )


def losses(scale: Scale, device: torch.device, dtype: torch.dtype) -> list[float]:
    """Of each update."""
    verifier, _ = half_right_pair(scale.small, torch.device("cpu"), torch.float32)
    for weight in verifier.model.parameters():  # rotary frequencies stay float32, as loaded ones
        weight.data = weight.data.to(dtype)
    verifier = verifier.to(device)
    longest = min(LONGEST, scale.longest)
    tokens = random_documents(scale.curve * BATCH, scale.small["vocab_size"], longest)
    name = str(dtype).removeprefix("torch.")
    config = make_config(
        epochs=1, micro_batch_size=BATCH, features="replay", replay_passes=1, noise_low=0.0,
        noise_high=0.0, learning_rate=2e-3, replay_documents=len(tokens), verifier_model_dtype=name,
        verifier_model_lm_head_dtype=name, eagle_dtype=name, mixed_precision="none",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(
            *new_draft(config, verifier), verifier, "", tokens, tokens.part(0, 1),
            Path(folder), NullTracker(),
        )  # fmt: skip
        trainer.run()
    return [row["loss"] for row in trainer.state.history]
