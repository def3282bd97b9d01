"""The most memory that training takes, against the estimate before the first step."""

import torch

from benchmarks.gpu.models import random_verifier
from benchmarks.gpu.part import Report
from benchmarks.gpu.scale import Scale
from benchmarks.gpu.training import trainer_of
from eagle.tokens.token_set import TokenSet
from eagle.training.memory import memory_by_part
from eagle.training.memory_and_flops import peak_memory_mb

UPDATES = 4


def measure_memory(scale: Scale, report: Report) -> None:
    """The peak of updates whose documents all have the greatest length."""
    verifier = random_verifier(scale.verifier, scale.device)
    tokens = longest_documents(UPDATES * scale.batch, scale)
    with trainer_of(scale, verifier, tokens, "replay", 1, replay_documents=len(tokens)) as trainer:
        trainer.run()
    parts = memory_by_part(trainer.sizes)
    estimate = sum(parts.values())
    measured = peak_memory_mb(scale.device) / 1000
    report(
        measured_gb=measured,
        estimate_gb=estimate / 1e9,
        parts_gb={name: size / 1e9 for name, size in parts.items()},
        estimate_error=estimate / 1e9 / measured - 1,
    )


def longest_documents(count: int, scale: Scale) -> TokenSet:
    """All tokens are the assistant's."""
    ids = torch.full((count * scale.longest,), 3, dtype=torch.int32)
    bounds = torch.arange(count + 1) * scale.longest
    return TokenSet(ids, torch.ones(len(ids), dtype=torch.uint8), bounds)
