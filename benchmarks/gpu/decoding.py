"""What a step of each decoder takes: with its kernels launched one by one, captured as a CUDA
graph, and with the verifier's layers compiled as well, as `evaluate` runs it."""

import time

import torch

from benchmarks.gpu.models import random_draft, random_verifier
from benchmarks.gpu.part import Report
from benchmarks.gpu.scale import Scale
from eagle.decoding.speculative import ONE_BY_ONE, Decoders, Generation, Launch
from eagle.decoding.tree import DynamicTree, Tree

SHAPES = {
    "vanilla": None,
    "chain of 2": Tree.chain(2),
    "chain of 4": Tree.chain(4),
    "mc_sim_7b_63": Tree.named("mc_sim_7b_63"),
    "EAGLE-2, 16 tokens": DynamicTree(tokens=16, depth=3, top_k=4),
    "EAGLE-2, 60 tokens": DynamicTree(tokens=60, depth=5, top_k=10),
}
COMPILED = ("vanilla", "chain of 4", "mc_sim_7b_63")
"""What is timed with compiled layers too; each takes some seconds to compile."""
PAPERS_TAU = 3.62
"""Of LLaMA2-Chat 7B on MT-bench at temperature 0 (EAGLE, table 1): random weights have none."""


def measure_decoding(scale: Scale, report: Report) -> None:
    """Seconds a step, and what follows from them at the paper's tau."""
    verifier = random_verifier(scale.verifier, scale.device)
    verifier.stop_token_ids = []  # so that every text has the maximum length
    draft = random_draft(verifier).cast(torch.bfloat16)
    # the input embedding is looked up, not read
    read = sum(weight.nbytes for weight in verifier.model.parameters()) - verifier.embedding.nbytes
    report(weights_gb=read / 1e9, tokens_before=scale.prompt, tokens=scale.decoded)
    prompt = torch.arange(3, 3 + scale.prompt).tolist()
    ways = {"compiled": scale.launch, "with graphs": Launch(graphs=True), "without": ONE_BY_ONE}
    for name, launch in ways.items():
        decoders = Decoders(verifier, draft, launch=launch)
        steps: dict[str, dict] = {}
        for decoder, shape in SHAPES.items():
            if launch.compiled and decoder not in COMPILED:
                continue
            began = time.perf_counter()
            _decode(decoders, prompt, scale.decoded, shape)  # compiles and captures
            first = time.perf_counter() - began
            generation = _decode(decoders, prompt, scale.decoded, shape)
            seconds = generation.decode_seconds / generation.verifier_steps
            over = seconds / steps["vanilla"]["step_seconds"] if steps else 1.0
            steps[decoder] = {
                "captured": decoders.capturing,
                "compiled": decoders.compiled is not None,
                "first_text_seconds": first,
                "step_seconds": seconds,
                "over_a_vanilla_step": over,  # the tau at which it breaks even
                "speedup_at_the_papers_tau": PAPERS_TAU / over if shape else 1.0,
                "draft_share": generation.draft_seconds / generation.decode_seconds,
            }
            report(**{name: steps})


def _decode(
    decoders: Decoders, prompt: list[int], count: int, shape: Tree | DynamicTree | None
) -> Generation:
    if shape is None:
        return decoders.vanilla(prompt, count)
    return decoders.speculate(prompt, count, shape)
