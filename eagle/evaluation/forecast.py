"""How fast a chain or a static tree will be, computed from measurements before it is run.

The cost of a step is measured on this machine. How many tokens a step yields follows from greedy
texts: the draft reads a text itself instead of its own guesses, and each next token of the text has
a rank among the draft's predictions. Those ranks tell which drafted tokens of any tree would have
been accepted, so each text is walked step by step as every tree would have written it.

Shapes: P prompt tokens, N tokens of a text, H hidden, S tokens that can be drafted.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median
from typing import NamedTuple

import numpy as np
import torch

from eagle.decoding.speculative import Decoders, Launch
from eagle.decoding.tree import NAMED, Ranks, Tree
from eagle.draft.draft import Draft
from eagle.draft.onednn_weights import linear
from eagle.draft.rollout import rollout
from eagle.draft.vocabulary import Vocabulary
from eagle.errors import InputError
from eagle.evaluation.lossless import reference_texts
from eagle.tokens.token_set import TokenSet
from eagle.verifier.verifier import Verifier

PROMPTS, TEXT_TOKENS = 24, 40
"""The number of held-out prompts, and of tokens in the reply to each."""
DEPTH, WIDTH = 5, 10
"""How many tokens ahead, and how many ranks, the forecast looks at."""
MOST_ROWS = 26
"""The most rows of a grown tree: the paper's number, which already slows a verifier on a CPU."""
SCREENING_ROUNDS, FINAL_ROUNDS, FINALISTS = 2, 4, 3
"""In how many rounds every shape is timed, and in how many the finalists are timed again. Among
many timed shapes the fastest is likely one whose time was measured too short."""
ROUND_TOKENS = 12
"""Tokens that a shape decodes in one round."""


class Forecast(NamedTuple):
    name: str
    shape: Tree
    tau: float
    """Acceptance length on the texts."""
    step_cost: float
    """Time of a draft-and-verify step over that of a vanilla step: the tau that breaks even."""

    @property
    def speedup(self) -> float:
        """Over vanilla decoding, without the prefill."""
        return self.tau / self.step_cost


class StepCost(NamedTuple):
    """Time of a draft-and-verify step, in vanilla steps."""

    drafting: float
    rest: float

    @property
    def total(self) -> float:
        return self.drafting + self.rest


def forecast_on(
    held_out: TokenSet,
    verifier: Verifier,
    draft: Draft,
    vocabulary: Vocabulary,
    chains: bool,
    launch: Launch,
) -> list[Forecast]:
    """`forecast` on the verifier's greedy replies to the first prompts of held-out conversations.

    The named trees are among the shapes.
    """
    prompts = held_out_prompts(held_out)
    texts = reference_texts(verifier, prompts, TEXT_TOKENS)
    named = {name: Tree.named(name) for name in NAMED}
    return forecast(verifier, draft, vocabulary, prompts, texts, named, chains, launch)


def held_out_prompts(held_out: TokenSet) -> list[list[int]]:
    """The shortest of the conversations' beginnings, each up to its first reply."""
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
    launch: Launch,
) -> list[Forecast]:
    """Forecast chains of one to DEPTH tokens, trees grown for these texts, and the named trees.

    Args:
        texts: the verifier's greedy continuations of the prompts.
        chains: whether the decoder to choose is a chain; otherwise it is a tree.
        launch: as of `Decoders`; what a step costs depends on it.

    Returns:
        The fastest shape of that kind, the other finalists, then the shapes that were timed in the
        screening alone; those of the other kind come last.

    Raises:
        InputError: all texts are too short for a forecast.
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
    never_stops = Verifier(verifier.model, [], verifier.key_value_shapes)
    decoders = Decoders(never_stops, draft, vocabulary, launch=launch)

    def timed(shapes: list[Tree], rounds: int) -> list[StepCost]:
        return step_costs(decoders, prompt, shapes, rounds)

    def forecasts(shapes: dict[str, Tree], costs: list[StepCost]) -> list[Forecast]:
        rows = [
            Forecast(name, shape, tau_on(ranks, shape), cost.total)
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
    """For each token of the text, the draft's ranks of the DEPTH tokens that follow it.

    A rank is WIDTH where the token is not among the draft's WIDTH most likely ones. The last DEPTH
    tokens of the text, which fewer tokens follow, are left out.
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
        logits = linear(predicted[roots - 1 + step], vocabulary.head)  # [N - DEPTH, S]
        best = vocabulary.token_ids[logits.topk(min(WIDTH, logits.shape[1])).indices]
        found = best == ids[roots + 1 + step][:, None]
        columns.append(torch.where(found.any(1), found.int().argmax(1), WIDTH))
    return [tuple(row) for row in torch.stack(columns, dim=1).tolist()]


def tau_on(ranks: list[list[Ranks]], tree: Tree) -> float:
    """The tree's acceptance length on texts with these ranks, walked step by step."""
    accepted = [count for text in ranks for count in accepted_on(text, tree)]
    return 1 + sum(accepted) / len(accepted)


def accepted_on(text: list[Ranks], tree: Tree) -> list[int]:
    """The number of drafted tokens that each step with this tree accepts along the text."""
    paths, accepted, at = set(tree.paths), [], 0
    while at < len(text):
        depths = range(1, tree.depth + 1)
        # the beginnings of a path are paths of the tree as well
        accepted.append(sum(text[at][:depth] in paths for depth in depths))
        at += 1 + accepted[-1]
    return accepted


def grown_trees(ranks: list[list[Ranks]], depth: int) -> Iterator[Tree]:
    """Trees of growing size: each adds the path that occurs in the texts most often."""
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
    decoders: Decoders, prompt: list[int], shapes: Sequence[Tree], rounds: int
) -> list[StepCost]:
    """Time a step of each shape, in vanilla steps.

    Args:
        decoders: of a verifier that never stops.

    In each round all shapes take turns, and each is compared with the vanilla decoding of that
    round, so that whatever slows the machine slows all alike. The costs are medians over rounds.
    """
    costs: list[list[StepCost]] = [[] for _ in shapes]
    for _ in range(rounds):
        reference = decoders.vanilla(prompt, ROUND_TOKENS)
        vanilla_step = reference.decode_seconds / reference.verifier_steps
        for tree, measured in zip(shapes, costs, strict=True):
            generation = decoders.speculate(prompt, ROUND_TOKENS, tree)
            drafting, steps = generation.draft_seconds, generation.verifier_steps
            rest = generation.decode_seconds - drafting
            measured.append(StepCost(drafting / steps / vanilla_step, rest / steps / vanilla_step))
    return [
        StepCost(median(cost.drafting for cost in measured), median(cost.rest for cost in measured))
        for measured in costs
    ]


def _fastest_grown(
    ranks: list[list[Ranks]], depth: int, shapes: list[Tree], costs: list[StepCost]
) -> Tree | None:
    """The grown tree of this depth with the best forecast.

    Drafting costs what it costs the timed shapes of the same depth; the rest of a step is
    interpolated between the timed shapes by the number of rows.
    """
    drafting = min(
        cost.drafting for shape, cost in zip(shapes, costs, strict=True) if shape.depth == depth
    )
    rows, rest = zip(
        *sorted((len(shape), cost.rest) for shape, cost in zip(shapes, costs, strict=True)),
        strict=True,
    )

    def speedup(tree: Tree) -> float:
        return tau_on(ranks, tree) / (drafting + float(np.interp(len(tree), rows, rest)))

    trees = [tree for tree in grown_trees(ranks, depth) if tree.depth == depth]
    return max(trees, key=speedup, default=None)
