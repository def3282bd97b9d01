"""One checkout's side of `benchmarks.compare`, which starts it: does a job, and says its CPU time.

It runs with the `eagle` and the `benchmarks` of that checkout, an older one maybe, so it calls only
what both have. Reads a job a line from its input, and answers each with a line.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.train_throughput import REDUCED, our_job
from eagle.decoding.speculative import speculate, vanilla
from eagle.decoding.tree import DynamicTree, Tree
from eagle.evaluation.models import frequent_tokens, load_models
from eagle.tokens.token_set import TokenSet
from eagle.verifier.verifier import Verifier

VERIFIER, DRAFT = Path("resources/verifier"), Path("models/export/official")
TOKENS = Path("resources/tokens/train.safetensors")
DRAFT_VOCABULARY = 8192
SHAPES = {
    "chain of 2": Tree.chain(2),
    "chain of 4": Tree.chain(4),
    "tree of 9, 3 deep": Tree.from_paths(
        [[0], [1], [2], [3], [4], [0, 0], [0, 1], [1, 0], [0, 0, 0]]
    ),
    "mc_sim_7b_63": Tree.named("mc_sim_7b_63"),
    "EAGLE-2, 16 tokens": DynamicTree(tokens=16, depth=3, top_k=4),
}


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what else is printed goes with the errors
    torch.set_num_threads(1)  # threads that wait for each other would count as work
    tokens = TokenSet.load(TOKENS)
    decoders = train = None
    for line in sys.stdin:
        job = json.loads(line)
        if "way" in job:
            train = train or Verifier.load(VERIFIER, torch.bfloat16, torch.device("cpu"))
            run = training(job["way"], train, tokens.part(0, job["documents"]))
        else:
            decoders = decoders or decoders_on(tokens)
            decode = decoders[job["decoder"]]
            run = lambda decode=decode, job=job: decode(job["prompt"], job["tokens"])  # noqa: E731
        began = time.process_time()
        text = run()
        seconds = time.process_time() - began
        print(json.dumps({"seconds": seconds, "text": text}), file=answers, flush=True)


def training(way: str, verifier: Verifier, tokens: TokenSet) -> Callable[[], None]:
    """A way of training as `benchmarks.train_throughput` names it: two epochs."""
    features, softmax = way.split(", ")
    source, _, passes = features.partition(" ")
    vocabulary = REDUCED if softmax == "reduced" else None
    return our_job(tokens, verifier, vocabulary, 2, 8, source, int(passes or 1))


def decoders_on(trained_on: TokenSet) -> dict[str, Callable[[list[int], int], list]]:
    """Decoders by name: a prompt and the number of tokens to the text and what was accepted."""
    drafted = frequent_tokens(trained_on, VERIFIER, DRAFT_VOCABULARY)
    verifier, draft, vocabulary = load_models(
        VERIFIER, DRAFT, torch.bfloat16, torch.device("cpu"), drafted
    )
    verifier.stop_token_ids = []  # every text has the same length

    def generate(prompt: list[int], count: int) -> list:
        ids = torch.tensor([prompt])
        output = verifier.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, min_new_tokens=count,
            do_sample=False,
        )  # fmt: skip
        return output[0].tolist()

    def with_draft(shape: Tree | DynamicTree) -> Callable[[list[int], int], list]:
        def decode(prompt: list[int], count: int) -> list:
            found = speculate(verifier, draft, prompt, count, shape, vocabulary)
            return [found.token_ids, found.accepted]

        return decode

    return {
        "transformers.generate": generate,
        "vanilla": lambda prompt, count: vanilla(verifier, prompt, count).token_ids,
    } | {name: with_draft(shape) for name, shape in SHAPES.items()}


if __name__ == "__main__":
    main()
