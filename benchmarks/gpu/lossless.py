"""Speculative decoding on the GPU writes the verifier's own text, in float32."""

import copy
from dataclasses import asdict

import torch

from benchmarks.gpu.models import half_right_pair
from benchmarks.gpu.part import Report
from benchmarks.gpu.scale import Scale
from eagle.decoding.speculative import Decoders
from eagle.decoding.tree import DynamicTree, Tree
from eagle.evaluation.lossless import compare_texts, reference_texts
from eagle.evaluation.metrics import acceptance_length
from eagle.verifier.verifier import Verifier

PROMPTS, PROMPT, TOKENS = 8, 20, 64
"""The number of prompts, and tokens of each and of the text after it."""
SHAPES = {
    "vanilla": None,
    "chain of 5": Tree.chain(5),
    "mc_sim_7b_63": Tree.named("mc_sim_7b_63"),
    "EAGLE-2, 16 tokens": DynamicTree(tokens=16, depth=3, top_k=4),
}


def measure_lossless(scale: Scale, report: Report) -> None:
    """Each decoder's texts against those of transformers' `generate`.

    A first difference must be a tie of two logits in float64. A decoder that had no drafted token
    accepted proves nothing: its tau must be above 1.
    """
    verifier, draft = half_right_pair(scale.small, scale.device, torch.float32)
    generator = torch.Generator().manual_seed(0)
    size = (PROMPTS, min(PROMPT, scale.prompt))
    prompts = torch.randint(3, scale.small["vocab_size"], size, generator=generator).tolist()
    count = min(TOKENS, scale.decoded)
    references = reference_texts(verifier, prompts, count)

    def judge() -> Verifier:
        model = copy.deepcopy(verifier.model).double()
        return Verifier(model, verifier.stop_token_ids, verifier.key_value_shapes)

    decoders = Decoders(verifier, draft, launch=scale.launch)
    for name, shape in SHAPES.items():
        if shape is None:
            generations = [decoders.vanilla(prompt, count) for prompt in prompts]
        else:
            generations = [decoders.speculate(prompt, count, shape) for prompt in prompts]
        texts = [generation.token_ids for generation in generations]
        compared = compare_texts(judge, prompts, texts, references)
        tau = acceptance_length(generations) if shape else 1.0
        report(
            **{
                name: {
                    "lossless": all(text.lossless() for text in compared),
                    "identical": sum(text.identical for text in compared),
                    "texts": len(compared),
                    "ties": [asdict(text) for text in compared if not text.identical],
                    "tau": tau,
                    "captured": decoders.capturing,
                    "compiled": decoders.compiled is not None,
                }
            }
        )
