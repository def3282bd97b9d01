"""Where the host waits for the device, as torch's sync debug mode finds it."""

import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.gpu.models import random_documents, random_draft, random_verifier
from benchmarks.gpu.part import Report
from benchmarks.gpu.scale import Scale
from benchmarks.gpu.training import trainer_of
from eagle.decoding.speculative import Decoders, Generation, Launch
from eagle.decoding.tree import Tree

WARM, COUNTED = 3, 4
"""Updates before those in which waits are counted, and the number of these."""


def measure_waits(scale: Scale, report: Report) -> None:
    """Waits an update and a decoding step, with the lines at which they are.

    Losses are read every few updates, between them; a step needs one transfer to the host.
    """
    verifier = random_verifier(scale.small, scale.device)
    tokens = random_documents(scale.buffer, scale.small["vocab_size"], scale.longest)
    passes = 1 + (WARM + COUNTED) * scale.batch // len(tokens)
    with trainer_of(scale, verifier, tokens, "replay", passes) as trainer:
        for update in range(WARM):
            trainer._update(update)
        found = waits_in(
            scale, lambda: [trainer._update(update) for update in range(WARM, WARM + COUNTED)]
        )
    report(update={"waits": sum(found.values()) / COUNTED, "lines": found})
    verifier = random_verifier(scale.small, scale.device)  # training may have packed the other
    verifier.stop_token_ids = []
    draft = random_draft(verifier).cast(torch.bfloat16)
    prompt = torch.arange(3, 3 + scale.prompt).tolist()
    tree = Tree.named("mc_sim_7b_63")
    decoders = Decoders(verifier, draft, launch=Launch(graphs=True))
    report(vanilla=waits_a_step(scale, lambda count: decoders.vanilla(prompt, count)))
    report(mc_sim_7b_63=waits_a_step(scale, lambda count: decoders.speculate(prompt, count, tree)))


def waits_a_step(scale: Scale, decode: Callable[[int], Generation]) -> dict:
    """Of a decoder, called with the number of tokens to decode; the prefill's are left out."""
    decode(scale.decoded)
    found, texts = [], []
    for count in (scale.decoded // 2, scale.decoded):
        found.append(waits_in(scale, lambda count=count: texts.append(decode(count))))
    more = found[1] - found[0]
    return {
        "waits": more.total() / (texts[1].verifier_steps - texts[0].verifier_steps),
        "lines": more,
    }


def waits_in(scale: Scale, job: Callable[[], object]) -> Counter[str]:
    """How often a job waited at each line."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if not scale.toy:  # a CPU is never waited for
            torch.cuda.set_sync_debug_mode("warn")
        job()
        if not scale.toy:
            torch.cuda.set_sync_debug_mode("default")
    return Counter(
        f"{Path(warning.filename).name}:{warning.lineno}"
        for warning in caught
        if "synchronizing" in str(warning.message)
    )
