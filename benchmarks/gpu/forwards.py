"""The verifier's forwards: tokens a second, and how much of the product rate they reach."""

from benchmarks.gpu.clock import seconds_of
from benchmarks.gpu.models import random_documents, random_draft, random_verifier
from benchmarks.gpu.part import Report
from benchmarks.gpu.scale import Scale
from benchmarks.train_throughput import make_config
from eagle.training.build import with_attention
from eagle.training.features import group_by_length
from eagle.training.memory_and_flops import operations_of_features


def measure_forwards(scale: Scale, report: Report) -> None:
    """The features of one replay buffer, without the teacher; padding counts as work."""
    verifier = random_verifier(scale.verifier, scale.device)
    tokens = random_documents(scale.buffer, scale.verifier["vocab_size"], scale.longest)
    attn = with_attention(make_config(), random_draft(verifier), verifier).attn
    groups = [
        [tokens.token_ids[tokens.span(document)] for document in group]
        for group in group_by_length(tokens, list(range(len(tokens))), verifier)
    ]

    def forwards() -> None:
        for group in groups:
            verifier.side_by_side(group)

    forwards()
    before = verifier.read
    seconds = seconds_of(forwards, scale.device)
    real, padding = (after - first for after, first in zip(verifier.read, before, strict=True))
    done = operations_of_features(verifier, 0, real + padding, 0)
    report(
        attn=attn,
        packed=verifier.packs,
        tokens_per_second=real / seconds,
        padding_share=padding / (real + padding),
        forwards=len(groups),
        tflops=done / seconds / 1e12,
    )
