"""What a step of each decoder takes, with and without CUDA graphs."""

import torch

from benchmarks.gpu.models import random_draft, random_verifier
from benchmarks.gpu.part import Report
from benchmarks.gpu.scale import Scale
from eagle.decoding.speculative import Generation, speculate, vanilla
from eagle.decoding.tree import DynamicTree, Tree
from eagle.draft.draft import Draft
from eagle.verifier.verifier import Verifier

SHAPES = {
    "vanilla": None,
    "chain of 2": Tree.chain(2),
    "chain of 4": Tree.chain(4),
    "mc_sim_7b_63": Tree.named("mc_sim_7b_63"),
    "EAGLE-2, 16 tokens": DynamicTree(tokens=16, depth=3, top_k=4),
    "EAGLE-2, 60 tokens": DynamicTree(tokens=60, depth=5, top_k=10),
}
PAPERS_TAU = 3.62
"""Of LLaMA2-Chat 7B on MT-bench at temperature 0 (EAGLE, table 1): random weights have none."""


def measure_decoding(scale: Scale, report: Report) -> None:
    """Milliseconds a step, and the tau at which each decoder breaks even with vanilla decoding."""
    verifier = random_verifier(scale.verifier, scale.device)
    verifier.stop_token_ids = []  # so that every text has the maximum length
    draft = random_draft(verifier).cast(torch.bfloat16)
    # the input embedding is looked up, not read
    read = sum(weight.nbytes for weight in verifier.model.parameters()) - verifier.embedding.nbytes
    report(weights_gb=read / 1e9, tokens_before=scale.prompt)
    for name in ("with graphs", "without"):
        steps: dict[str, dict] = {}
        for decoder, shape in SHAPES.items():
            for _ in range(2):  # the second is measured
                generation = decode(scale, verifier, draft, shape)
            seconds = generation.decode_seconds / generation.verifier_steps
            over = seconds / steps["vanilla"]["step_seconds"] if steps else 1.0
            steps[decoder] = {
                "step_seconds": seconds,
                "over_a_vanilla_step": over,
                "speedup_at_the_papers_tau": PAPERS_TAU / over if shape else 1.0,
                "draft_share": generation.draft_seconds / generation.decode_seconds,
            }
            report(**{name: steps})


def decode(
    scale: Scale, verifier: Verifier, draft: Draft, shape: Tree | DynamicTree | None
) -> Generation:
    """One text; without a shape by vanilla decoding."""
    prompt = torch.arange(3, 3 + scale.prompt).tolist()
    if shape is None:
        return vanilla(verifier, prompt, scale.decoded)
    return speculate(verifier, draft, prompt, scale.decoded, shape)
