"""How fast a chain or a static tree will be, from what was measured, before it is run.

A step costs what one takes on this machine. What it yields follows from greedy texts: the draft,
fed a text itself instead of its own guesses, finds the text's next tokens at certain ranks, and
those ranks say for every tree what it would have accepted there. So each text is walked again as
every tree would have written it.

Shapes: P prompt tokens, N of the text, H hidden, S tokens that can be drafted.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median
from typing import NamedTuple

import numpy as np
import torch

from eagle.decoding import speculate, vanilla
from eagle.draft import Draft
from eagle.errors import InputError
from eagle.loss import Vocabulary
from eagle.packing import product
from eagle.rollout import rollout
from eagle.tree import Ranks, Tree
from eagle.verifier import Verifier

DEPTH, WIDTH = 5, 10
"""Levels and ranks that are looked at: the deepest chain, the last of a row's candidates."""
MOST_ROWS = 26
"""Of a grown tree: as many as the paper's, which a verifier on a CPU already feels."""
ROUNDS, TOKENS = 3, 8
"""How often each shape is timed, and the tokens it decodes each time."""


class Forecast(NamedTuple):
    name: str
    shape: Tree
    tau: float
    """Acceptance length on the texts."""
    step_cost: float
    """Seconds of one draft-and-verify step over those of a vanilla step: the tau at which this
    shape breaks even."""

    @property
    def speedup(self) -> float:
        """Over vanilla decoding, prefill left out."""
        return self.tau / self.step_cost


def forecast(
    verifier: Verifier,
    draft: Draft,
    vocabulary: Vocabulary,
    prompts: list[list[int]],
    texts: list[list[int]],
    named: dict[str, Tree],
) -> list[Forecast]:
    """Chains of one to five, trees grown for these texts, and the named ones, the fastest first.

    Args:
        texts: the verifier's greedy continuations of the prompts.

    Raises:
        InputError: all texts are too short to say anything.
    """
    ranks = [
        text_ranks(verifier, draft, vocabulary, prompt, text)
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    if not any(ranks):
        raise InputError(
            f"the verifier's replies to {len(prompts)} held-out prompts are all of {DEPTH} tokens "
            "or fewer, nothing to choose a decoder by; give evaluate.draft_length or "
            "evaluate.static_tree in place of auto"
        )
    prompt = min(prompts, key=len)
    known = {f"chain of {k}": Tree.chain(k) for k in range(1, DEPTH + 1)} | named
    broad = Tree.from_paths([(rank,) for rank in range(min(WIDTH, len(vocabulary.head)))])
    alone, times = step_times(verifier, draft, vocabulary, prompt, [*known.values(), broad])
    grown = {}
    for depth in range(1, DEPTH + 1):
        tree = _fastest_grown(ranks, depth, [*known.values(), broad], times)
        if tree is not None:
            grown[f"tree of {len(tree) - 1}, {depth} deep"] = tree
    forecasts = []
    for shapes in (known, grown):
        if shapes is grown:  # so far their steps' time was guessed from other shapes'
            alone, times = step_times(verifier, draft, vocabulary, prompt, list(grown.values()))
        for (name, tree), seconds in zip(shapes.items(), times, strict=False):
            forecasts.append(Forecast(name, tree, tau_on(ranks, tree), sum(seconds) / alone))
    return sorted(forecasts, key=lambda forecast: forecast.speedup, reverse=True)


@torch.inference_mode()
def text_ranks(
    verifier: Verifier, draft: Draft, vocabulary: Vocabulary, prompt: list[int], text: list[int]
) -> list[Ranks]:
    """At each token of the text but the last, at which ranks the draft finds those after it.

    The rank of the next token, of the one after, … up to DEPTH; WIDTH when it is not among the
    draft's WIDTH best. Tokens within DEPTH of the text's end are left out.
    """
    ids = torch.tensor(prompt + text, device=verifier.head.device)
    pairs, count = len(ids) - 1, len(text) - DEPTH
    if count < 1:
        return []
    features = verifier.features(ids[None])[0, :-1]  # [P + N - 1, H]
    embeddings, positions = verifier.embedding[ids[1:]], torch.arange(pairs, device=ids.device)
    predictions = rollout(draft, features, embeddings, positions, [pairs], "sdpa", DEPTH - 1)
    roots = torch.arange(count, device=ids.device) + len(prompt)
    columns = []
    for step, predicted in enumerate(predictions):
        logits = product(predicted[roots - 1 + step], vocabulary.head)  # [N - DEPTH, S]
        best = vocabulary.token_ids[logits.topk(min(WIDTH, logits.shape[1])).indices]
        found = best == ids[roots + 1 + step][:, None]
        columns.append(torch.where(found.any(1), found.int().argmax(1), WIDTH))
    return [tuple(row) for row in torch.stack(columns, dim=1).tolist()]


def tau_on(ranks: list[list[Ranks]], tree: Tree) -> float:
    """The tree's acceptance length on texts of these ranks, walked step by step."""
    runs = [run for text in ranks for run in accepted_on(text, tree)]
    return 1 + sum(runs) / len(runs)


def accepted_on(text: list[Ranks], tree: Tree) -> list[int]:
    """Drafted tokens that each step of the tree's would accept along the text."""
    paths, runs, at = set(tree.paths), [], 0
    while at < len(text):
        depths = range(1, tree.depth + 1)
        runs.append(sum(text[at][:depth] in paths for depth in depths))  # a path holds its own
        at += 1 + runs[-1]
    return runs


def grown_trees(ranks: list[list[Ranks]], depth: int) -> Iterator[Tree]:
    """Trees of one token more each, always the one that the texts have most often."""
    counts = Counter(
        row[:length] for text in ranks for row in text for length in range(1, depth + 1)
    )
    paths: list[Ranks] = []
    open_paths: list[Ranks] = [(0,)]
    while open_paths and len(paths) < MOST_ROWS - 1:
        path = max(open_paths, key=lambda path: (counts[path], -len(path)))
        paths.append(path)
        open_paths.remove(path)
        if path[-1] + 1 < WIDTH:
            open_paths.append((*path[:-1], path[-1] + 1))
        if len(path) < depth:
            open_paths.append((*path, 0))
        yield Tree.from_paths(paths)


def step_times(
    verifier: Verifier,
    draft: Draft,
    vocabulary: Vocabulary,
    prompt: list[int],
    shapes: Sequence[Tree],
) -> tuple[float, list[tuple[float, float]]]:
    """Seconds of a vanilla step, and of each shape's: drafting, and all the rest.

    Medians over rounds in which all take turns, so that what slows the machine slows them alike.
    """
    endless = Verifier(verifier.model, stop_token_ids=[])
    alone: list[float] = []
    times: list[list[tuple[float, float]]] = [[] for _ in shapes]
    for _ in range(ROUNDS):
        plain = vanilla(endless, prompt, TOKENS)
        alone.append(plain.decode_seconds / plain.verifier_steps)
        for tree, rounds in zip(shapes, times, strict=True):
            fast = speculate(endless, draft, prompt, TOKENS, tree, vocabulary)
            rounds.append(
                (
                    fast.draft_seconds / fast.verifier_steps,
                    (fast.decode_seconds - fast.draft_seconds) / fast.verifier_steps,
                )
            )
    medians = [tuple(median(column) for column in zip(*rounds, strict=True)) for rounds in times]
    return median(alone), medians


def _fastest_grown(
    ranks: list[list[Ranks]], depth: int, shapes: list[Tree], times: list[tuple[float, float]]
) -> Tree | None:
    """The tree of this depth that promises most, its steps' time read between timed shapes'."""
    drafting = min(
        seconds for shape, (seconds, _) in zip(shapes, times, strict=True) if shape.depth == depth
    )
    rows = sorted((len(shape), rest) for shape, (_, rest) in zip(shapes, times, strict=True))

    def promise(tree: Tree) -> float:
        return tau_on(ranks, tree) / (
            drafting + float(np.interp(len(tree), *zip(*rows, strict=True)))
        )

    trees = [tree for tree in grown_trees(ranks, depth) if tree.depth == depth]
    return max(trees, key=promise, default=None)
