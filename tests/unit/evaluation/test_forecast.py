"""A forecast walks a text as the decoder would have written it."""

import pytest
import torch

from eagle.decoding.speculative import ONE_BY_ONE, speculate, vanilla
from eagle.decoding.tree import Tree
from eagle.draft.vocabulary import full_vocabulary, part_of_vocabulary
from eagle.evaluation.forecast import (
    DEPTH,
    FINAL_ROUNDS,
    FINALISTS,
    SCREENING_ROUNDS,
    StepCost,
    accepted_on,
    forecast,
    grown_trees,
    tau_on,
    text_ranks,
)

# verifier, draft and echo: tests/unit/conftest.py


def prompts(count: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(3, 250, (5,), generator=generator).tolist() for _ in range(count)]


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("tree", [Tree.chain(3), Tree.named("mc_sim_7b_63")])
def test_a_walk_accepts_what_the_decoder_accepts(verifier, echo, tree, partial):
    vocabulary = full_vocabulary(verifier.head)
    if partial:
        vocabulary = part_of_vocabulary(verifier.head, torch.arange(0, len(verifier.head), 2))
    accepted = 0
    for prompt in prompts(4):
        text = vanilla(verifier, prompt, 32 + DEPTH).token_ids
        ranks = text_ranks(verifier, echo, vocabulary, prompt, text)
        walked = accepted_on(ranks, tree)
        decoded = speculate(verifier, echo, prompt, len(text), tree, vocabulary).accepted
        assert walked == decoded[: len(walked)]
        accepted += sum(walked)
    assert accepted > 0


def test_trees_grow_by_what_the_texts_have_most_often():
    ranks = [[(0, 0), (0, 1), (1, 0), (10, 3), (0, 0), (2, 0)]]
    trees = list(grown_trees(ranks, 2))
    assert [tree.paths[0] for tree in trees[:1]] == [(0,)]
    assert trees[1].paths == [(0,), (0, 0)]
    assert set(trees[2].paths) in ({(0,), (0, 0), (1,)}, {(0,), (0, 0), (0, 1)})
    assert [len(tree) for tree in trees] == list(range(2, 27))
    taus = [tau_on(ranks, tree) for tree in trees]
    assert taus == sorted(taus)
    assert all(tree.depth <= 2 for tree in trees)
    assert list(grown_trees(ranks, 1))[-1].paths == [(rank,) for rank in range(10)]


def test_tau_on_ranks_written_out_by_hand():
    ranks = [[(0, 0), (10, 10), (10, 10), (0, 1), (1, 0)], [(10, 0)]]
    assert tau_on(ranks, Tree.chain(2)) == 1 + (2 + 1 + 0) / 3  # steps at 0, 3; and 0
    assert tau_on(ranks, Tree.chain(1)) == 1 + (1 + 0 + 1 + 0) / 4  # steps at 0, 2, 3; and 0
    assert tau_on(ranks, Tree.from_paths([[0], [0, 0], [0, 1]])) == 1 + (2 + 2 + 0) / 3


@pytest.mark.parametrize("chains", [False, True])
def test_forecasts_cover_chains_named_and_grown_trees(verifier, echo, chains):
    texts = [vanilla(verifier, prompt, 24).token_ids for prompt in prompts(4)]
    named = {"narrow": Tree.from_paths([[0], [1]])}
    vocabulary = full_vocabulary(verifier.head)
    rows = forecast(verifier, echo, vocabulary, prompts(4), texts, named, chains, ONE_BY_ONE)
    names = [row.name for row in rows]
    assert {"narrow", *(f"chain of {k}" for k in range(1, 6))} <= set(names)
    assert any(name.startswith("tree of") for name in names)
    assert len(set(names)) == len(names)
    of_the_kind = [row for row in rows if row.shape.is_chain == chains]
    others = rows[len(of_the_kind) :]
    assert rows == of_the_kind + others
    for group in (of_the_kind[:FINALISTS], of_the_kind[FINALISTS:], others):
        speedups = [row.speedup for row in group]
        assert speedups == sorted(speedups, reverse=True)
    taus = {row.name: row.tau for row in rows}
    assert taus["chain of 1"] <= taus["narrow"]
    assert taus["chain of 1"] <= taus["chain of 2"] <= taus["chain of 5"]


def test_the_chosen_shapes_cost_is_that_of_the_second_timing(verifier, echo, monkeypatch):
    """A shape whose time was measured too short in the screening is not chosen for it."""
    lucky, rounds_of = Tree.chain(4), []

    def costs(_decoders, _prompt, shapes, rounds):
        rounds_of.append(rounds)
        screening = rounds == SCREENING_ROUNDS
        return [StepCost(0.1, 0.2 if screening and shape == lucky else 1.0) for shape in shapes]

    monkeypatch.setattr("eagle.evaluation.forecast.step_costs", costs)
    texts = [vanilla(verifier, prompt, 24).token_ids for prompt in prompts(4)]
    vocabulary = full_vocabulary(verifier.head)
    best = forecast(verifier, echo, vocabulary, prompts(4), texts, {}, True, ONE_BY_ONE)[0]
    assert best.step_cost == 1.1
    assert rounds_of == [SCREENING_ROUNDS, SCREENING_ROUNDS, FINAL_ROUNDS]
