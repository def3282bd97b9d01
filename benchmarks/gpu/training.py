"""Trained tokens a second in steady state: the plain way, and ours with each source of features."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from benchmarks.gpu.clock import TimedTrainer, mark, seconds_between, seconds_of
from benchmarks.gpu.models import random_documents, random_draft, random_verifier
from benchmarks.gpu.part import Report
from benchmarks.gpu.scale import Scale
from benchmarks.train_throughput import make_config, masked_tokens, plain_job
from eagle.tokens.token_set import TokenSet
from eagle.tracking import NullTracker
from eagle.training.build import build_trainer, with_attention
from eagle.training.memory_and_flops import operations
from eagle.verifier.verifier import Verifier

# Features and passes over each buffer.
WAYS = {"replay 1": ("replay", 1), "replay 4": ("replay", 4), "cache": ("cache", 2)}


def measure_training(scale: Scale, report: Report) -> None:
    """Each way's rate in steady state; what is paid once stands beside it.

    With replay there are two buffers. The second is measured: its features, and the updates of all
    passes over it. The cache's first pass is left out, so that its updates alone are measured; its
    features cost `once_seconds`, with all else that comes before the steady state.
    """
    device = scale.device
    verifier = random_verifier(scale.verifier, device)
    vocabulary = scale.verifier["vocab_size"]
    tokens = random_documents(2 * scale.buffer, vocabulary, scale.longest)
    second = tokens.part(scale.buffer, 2 * scale.buffer)
    draft = random_draft(verifier).cast(torch.bfloat16)
    plain_job(tokens.part(0, 2 * scale.batch), verifier, draft, 1, scale.batch)()
    seconds = seconds_of(plain_job(second, verifier, draft, 1, scale.batch), device)
    masked = masked_tokens(second, verifier.stop_token_ids)
    report(plain={"masked_tokens_per_second": masked / seconds})
    for way, (features, passes) in WAYS.items():
        documents = second if features == "cache" else tokens
        began, first = time.perf_counter(), mark(device)
        with trainer_of(scale, verifier, documents, features, passes) as trainer:
            report(attn=trainer.config.attn)
            trainer.run()
            report(**{way: steady(trainer, began, first)})
        if way == "replay 4":
            report(update=updates_alone(trainer))


@contextmanager
def trainer_of(
    scale: Scale,
    verifier: Verifier,
    tokens: TokenSet,
    features: str,
    passes: int,
    form: type[TimedTrainer] = TimedTrainer,
    **more: object,
) -> Iterator[TimedTrainer]:
    """The trainer as it ships, with an empty cache, no state before the end and one validation.

    Args:
        more: other fields of the config.
    """
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EAGLE_CACHE"] = folder
        config = make_config(
            epochs=passes, micro_batch_size=scale.batch, features=features, replay_passes=passes,
            **{"replay_documents": scale.buffer} | more,
        )  # fmt: skip
        draft = random_draft(verifier)
        yield build_trainer(
            with_attention(config, draft, verifier), draft, verifier, "", tokens,
            tokens.part(0, 1), Path(folder), NullTracker(), form,
        )  # fmt: skip


def steady(trainer: TimedTrainer, began: float, first: torch.cuda.Event | float) -> dict:
    """The rate from the middle of the run to its last update.

    Args:
        began: the clock's seconds when building the trainer began, and `first` the device's mark.
    """
    middle, rows = trainer.end // 2, trainer.state.history
    seconds = seconds_between(trainer.begins[middle], trainer.ends[-1])
    masked = sum(row["masked_tokens"] for row in rows[middle:])
    before = seconds_between(first, trainer.begins[middle])
    return {
        "masked_tokens_per_second": masked / seconds,
        "updates": len(rows) - middle,
        "seconds": seconds,
        "before_seconds": before,
        "after_seconds": time.perf_counter() - began - before - seconds,
    }


def updates_alone(trainer: TimedTrainer) -> dict:
    """What updates take whose features are in memory: those after the second buffer's first one."""
    first = trainer.end // 2 + 1
    rows = trainer.state.history[first:]
    seconds = seconds_between(trainer.begins[first], trainer.ends[-1])
    tokens, masked = (sum(row[name] for row in rows) for name in ("tokens", "masked_tokens"))
    done = operations(trainer.draft, len(trainer.vocabulary.head), 0, tokens, masked)
    return {
        "milliseconds": 1000 * seconds / len(rows),
        "tokens_per_second": tokens / seconds,
        "tflops": done / seconds / 1e12,
    }
