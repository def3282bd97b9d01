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

from eagle.decoding.speculative import speculate, vanilla
from eagle.decoding.tree import NAMED, Ranks, Tree
from eagle.draft.draft import Draft
from eagle.draft.onednn_weights import product
from eagle.draft.rollout import rollout
from eagle.draft.vocabulary import Vocabulary
from eagle.errors import InputError
from eagle.evaluation.lossless import reference_texts
from eagle.tokens.token_set import TokenSet
from eagle.verifier.verifier import Verifier

PROMPTS, TEXT_TOKENS = 24, 40
"""Held-out prompts, and the tokens of the replies to them."""
DEPTH, WIDTH = 5, 10
"""Levels and ranks that are looked at: the deepest chain, the last of a row's candidates."""
MOST_ROWS = 26
"""Of a grown tree: as many as the paper's, which a verifier on a CPU already feels."""
SCREENING_ROUNDS, FINAL_ROUNDS, FINALISTS = 2, 4, 3
"""How often every shape is timed, and the most promising ones anew: the fastest of many timed
shapes is one that was timed too fast, until it is timed again."""
ROUND_TOKENS = 12
"""That a shape decodes in a round."""


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


def forecast_on(
    held_out: TokenSet, verifier: Verifier, draft: Draft, vocabulary: Vocabulary, chains: bool
) -> list[Forecast]:
    """`forecast` from the verifier's greedy replies to the beginnings of held-out conversations,
    the trees that have a name among its shapes."""
    prompts = held_out_prompts(held_out)
    texts = reference_texts(verifier, prompts, TEXT_TOKENS)
    named = {name: Tree.named(name) for name in NAMED}
    return forecast(verifier, draft, vocabulary, prompts, texts, named, chains)


def held_out_prompts(held_out: TokenSet) -> list[list[int]]:
    """The beginnings of conversations, each up to its first reply, the shortest ones."""
    prompts = []
    for document in range(len(held_out)):
        span = held_out.span(document)
        start = int(held_out.loss_mask[span].int().argmax())
        prompts.append(held_out.token_ids[span][:start].tolist())
    return sorted((prompt for prompt in prompts if prompt), key=len)[:PROMPTS]


def forecast(
    verifier: Verifier,
    draft: Draft,
    vocabulary: Vocabulary,
    prompts: list[list[int]],
    texts: list[list[int]],
    named: dict[str, Tree],
    chains: bool,
) -> list[Forecast]:
    """Chains of one to five, trees grown for these texts, and the named ones.

    Args:
        texts: the verifier's greedy continuations of the prompts.
        chains: whether a chain is to be chosen, or a tree.

    Returns:
        The fastest of the kind to be chosen, then the other FINALISTS, then all that were timed
        in the screening alone, those of the other kind last.

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
    prompt = sorted(prompts, key=len)[len(prompts) // 2]

    def timed(shapes: list[Tree], rounds: int) -> list[tuple[float, float]]:
        return step_costs(verifier, draft, vocabulary, prompt, shapes, rounds)

    def forecasts(shapes: dict[str, Tree], costs: list[tuple[float, float]]) -> list[Forecast]:
        rows = [
            Forecast(name, shape, tau_on(ranks, shape), sum(cost))
            for (name, shape), cost in zip(shapes.items(), costs, strict=True)
        ]
        return sorted(rows, key=lambda row: row.speedup, reverse=True)

    known = {f"chain of {k}": Tree.chain(k) for k in range(1, DEPTH + 1)} | named
    broad = Tree.from_paths([(rank,) for rank in range(min(WIDTH, len(vocabulary.head)))])
    costs = timed([*known.values(), broad], SCREENING_ROUNDS)
    grown = {}
    for depth in range(1, DEPTH + 1):
        tree = _fastest_grown(ranks, depth, [*known.values(), broad], costs)
        if tree is not None:
            grown[f"tree of {len(tree) - 1}, {depth} deep"] = tree
    costs = costs[:-1] + timed(list(grown.values()), SCREENING_ROUNDS)
    screened = forecasts(known | grown, costs)
    of_the_kind = [row for row in screened if row.shape.is_chain == chains]
    others = [row for row in screened if row.shape.is_chain != chains]
    finalists = {row.name: row.shape for row in of_the_kind[:FINALISTS]}
    final = forecasts(finalists, timed(list(finalists.values()), FINAL_ROUNDS))
    return final + of_the_kind[FINALISTS:] + others


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


def step_costs(
    verifier: Verifier,
    draft: Draft,
    vocabulary: Vocabulary,
    prompt: list[int],
    shapes: Sequence[Tree],
    rounds: int,
) -> list[tuple[float, float]]:
    """What a step of each shape takes, in vanilla steps: drafting, and all the rest.

    Medians over rounds in which all take turns, each against the vanilla decoding of its round, so
    that what slows the machine slows them alike.
    """
    endless = Verifier(verifier.model, stop_token_ids=[])
    costs: list[list[tuple[float, float]]] = [[] for _ in shapes]
    for _ in range(rounds):
        plain = vanilla(endless, prompt, ROUND_TOKENS)
        step = plain.decode_seconds / plain.verifier_steps
        for tree, row in zip(shapes, costs, strict=True):
            fast = speculate(endless, draft, prompt, ROUND_TOKENS, tree, vocabulary)
            rest = fast.decode_seconds - fast.draft_seconds
            steps = fast.verifier_steps
            row.append((fast.draft_seconds / steps / step, rest / steps / step))
    columns = (zip(*row, strict=True) for row in costs)
    return [(median(drafting), median(rest)) for drafting, rest in columns]


def _fastest_grown(
    ranks: list[list[Ranks]], depth: int, shapes: list[Tree], costs: list[tuple[float, float]]
) -> Tree | None:
    """The tree of this depth that promises most, its step's cost read between timed shapes'."""
    drafting = min(
        cost for shape, (cost, _) in zip(shapes, costs, strict=True) if shape.depth == depth
    )
    rows = sorted((len(shape), rest) for shape, (_, rest) in zip(shapes, costs, strict=True))

    def promise(tree: Tree) -> float:
        return tau_on(ranks, tree) / (
            drafting + float(np.interp(len(tree), *zip(*rows, strict=True)))
        )

    trees = [tree for tree in grown_trees(ranks, depth) if tree.depth == depth]
    return max(trees, key=promise, default=None)
