"""The verifier's forwards: tokens a second, and how much of the product rate they reach."""

from benchmarks.gpu.clock import seconds_of
from benchmarks.gpu.models import random_documents, random_draft, random_verifier
from benchmarks.gpu.part import Report
from benchmarks.gpu.scale import Scale
from benchmarks.train_throughput import make_config
from eagle.training.build import with_attention
from eagle.training.features import compute_features, group_by_length
from eagle.training.memory_and_flops import operations_of_features


def measure_forwards(scale: Scale, report: Report) -> None:
    """The features of one replay buffer, without the teacher; padding counts as work."""
    verifier = random_verifier(scale.verifier, scale.device)
    tokens = random_documents(scale.buffer, scale.verifier["vocab_size"], scale.longest)
    read = []
    verifier.decoder.register_forward_pre_hook(
        lambda _module, _args, named: read.append(named["input_ids"].numel()), with_kwargs=True
    )
    with_attention(make_config(), random_draft(verifier), verifier)  # packed, where it can be
    groups = group_by_length(tokens, list(range(len(tokens))), verifier)

    def forwards() -> None:
        read.clear()
        for group in groups:
            compute_features(tokens, verifier, group)

    forwards()
    seconds = seconds_of(forwards, scale.device)
    computed, real = sum(read), len(tokens.token_ids)
    report(
        tokens_per_second=real / seconds,
        padding_share=1 - real / computed,
        forwards=len(read),
        tflops=operations_of_features(verifier, 0, computed, 0) / seconds / 1e12,
    )
