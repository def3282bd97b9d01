"""The acceptance rules give the verifier's distribution; the same tests reject broken rules."""

import random

import pytest
import torch
from torch import Tensor

from eagle.decoding import acceptance
from eagle.decoding.acceptance import accept_greedy, accept_sampled, accept_siblings
from eagle.decoding.sampler import Sampling, draw, draw_distinct
from eagle.decoding.tree import Tree

VOCABULARY, DRAWS, CHUNK, TESTS = 12, 1_000_000, 100_000, 8
"""If every rule is right, one in a thousand runs of all these tests together fails."""
P_VALUE = 1e-3 / TESTS
CHAIN = Tree.chain(2)
TREE = Tree.from_paths([[0], [1], [2], [0, 0], [0, 1], [1, 0]])


def walk(tree: Tree, tokens: list[int], most_likely: list[int]) -> int:
    """The last accepted row, as one would find it by hand: the reference."""
    row = 0
    while True:
        agreeing = [child for child in tree.children[row] if tokens[child] == most_likely[row]]
        if not agreeing:
            return row
        row = agreeing[0]


def accepted(tree: Tree, tokens: list[int], most_likely: list[int]) -> int:
    on_device = tree.tensors(torch.device("cpu"))
    return int(accept_greedy(on_device, torch.tensor(tokens), torch.tensor(most_likely)))


def test_the_path_that_agrees_with_the_verifier_is_accepted():
    most_likely = [5, 6, 7, 8]
    for drafted, row in (([5, 6, 7], 3), ([5, 0, 7], 1), ([0, 6, 7], 0)):
        assert accepted(Tree.chain(3), [1, *drafted], most_likely) == row
    #                        root  [0] [1] [2] [0,0] [0,1] [1,0]
    tokens, most_likely = [9, 1, 2, 3, 4, 5, 6], [2, 0, 6, 0, 0, 0, 7]
    assert accepted(TREE, tokens, most_likely) == 6
    assert accepted(TREE, tokens, [3, *most_likely[1:]]) == 3
    assert accepted(TREE, tokens, [8, *most_likely[1:]]) == 0


def test_greedy_acceptance_is_a_walk_down_the_tree():
    """Random trees in which siblings differ, and few tokens, so that much is accepted."""
    choose = random.Random(0)
    depths = set()
    for _ in range(300):
        parents, tokens = [-1], [0]
        for _ in range(choose.randint(1, 20)):
            # rows are ordered by depth, so a parent is never before the last row's
            parent, token = choose.randrange(max(parents[-1], 0), len(parents)), choose.randrange(4)
            if (parent, token) not in zip(parents, tokens, strict=True):
                parents.append(parent)
                tokens.append(token)
        tree = Tree(parents)
        most_likely = [choose.randrange(4) for _ in parents]
        row = walk(tree, tokens, most_likely)
        assert accepted(tree, tokens, most_likely) == row
        depths.add(tree.depths[row])
    assert depths >= {0, 1, 2, 3}


def distributions(seed: int) -> tuple[Tensor, Tensor]:
    """q and p, each [1 + V, V]: of the first token, then of the second after every first."""
    generator = torch.Generator().manual_seed(seed)
    logits = 1.5 * torch.randn(2, 1 + VOCABULARY, VOCABULARY, generator=generator)
    return logits.double().softmax(-1).unbind()


def first_two_tokens(
    tree: Tree, seed: int, drawn: bool = True, q_given: bool = True, draws: int = DRAWS
) -> Tensor:
    """Counts [V, V] of the first two tokens of texts written with a tree of two levels.

    Args:
        drawn: whether candidates are drawn from q, or are q's most likely tokens.
        q_given: whether the rule is given q, which is right exactly when they are drawn.
    """
    q, p = distributions(seed)
    generator = torch.Generator().manual_seed(100 + seed)
    counts = torch.zeros(VOCABULARY * VOCABULARY)
    for _ in range(draws // CHUNK):
        uniforms = torch.rand(CHUNK, 2 * len(tree) + 1, generator=generator, dtype=torch.float64)
        tokens = torch.zeros(CHUNK, len(tree), dtype=torch.int64)

        def after(weights: Tensor, rows: Tensor, tokens: Tensor = tokens) -> Tensor:
            """The distributions that follow rows of the tree [B, V]."""
            at = tokens.gather(1, rows[:, None])[:, 0]
            return weights[torch.where(rows > 0, 1 + at, 0)]

        for row, children in enumerate(tree.children):
            if children:
                weights = after(q, torch.full((CHUNK,), row))
                at = [len(tree) + child for child in children]
                tokens[:, children] = (
                    draw_distinct(weights, uniforms[:, at])
                    if drawn
                    else weights.topk(len(children)).indices
                )
        row, next_token = accept_sampled(
            tree.tensors(torch.device("cpu")),
            tokens,
            (lambda rows: after(q, rows)) if q_given else None,
            lambda rows: after(p, rows),
            uniforms[:, : len(tree)],
        )
        everyone = torch.arange(CHUNK)
        depth = torch.tensor(tree.depths)[row]
        parent = torch.tensor(tree.parents)[row].clamp(min=0)
        drafted = tokens[everyone, torch.where(depth == 2, parent, row)]
        first = torch.where(depth > 0, drafted, next_token)
        # where no drafted token was accepted, the second comes from the next step, and so from p
        next_step = draw(p[1 + first], uniforms[:, -1])
        second = torch.where(depth == 2, tokens[everyone, row], next_token)
        second = torch.where(depth == 0, next_step, second)
        counts += torch.bincount(first * VOCABULARY + second, minlength=len(counts))
    return counts


def chi_square(counts: Tensor, expected: Tensor) -> float:
    """p-value of Pearson's test."""
    statistic = ((counts - expected) ** 2 / expected).sum().double()
    freedom = torch.tensor((len(counts) - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(freedom, statistic / 2))


def fits(counts: Tensor, seed: int) -> float:
    """p-value of the chi-square test against the verifier's own distribution."""
    _, p = distributions(seed)
    return chi_square(counts, (p[0][:, None] * p[1:]).flatten() * counts.sum())


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("tree", [CHAIN, TREE], ids=["chain", "tree"])
def test_drawn_candidates_leave_the_verifiers_distribution(tree, seed):
    assert fits(first_two_tokens(tree, seed), seed) > P_VALUE


@pytest.mark.parametrize("tree", [CHAIN, TREE], ids=["chain", "tree"])
def test_chosen_candidates_leave_the_verifiers_distribution(tree):
    assert fits(first_two_tokens(tree, 0, drawn=False, q_given=False), 0) > P_VALUE


def residual_is_p(candidates, draft, verifier, uniforms):
    accepted, _ = accept_siblings(candidates, draft, verifier, uniforms)
    return accepted, verifier


def swapped(candidates, draft, verifier, uniforms):
    if (candidates < 0).all():  # rows without children: nothing to swap
        return accept_siblings(candidates, draft, verifier, uniforms)
    return accept_siblings(candidates, verifier, draft, uniforms)


def siblings_not_renormalised(candidates, draft, verifier, uniforms):
    """Broken: neither q without a candidate nor the residual p is normalised."""
    count, p = candidates.shape[1], verifier
    accepted = torch.full((len(p),), count)
    for number, candidate in enumerate(candidates.T):
        at = candidate.clamp(min=0)[:, None]
        undecided = (accepted == count) & (candidate >= 0)
        chance = (p.gather(1, at) / draft.gather(1, at))[:, 0]
        accepts = undecided & (uniforms[:, number] < chance)
        accepted[accepts] = number
        p = torch.where((undecided & ~accepts)[:, None], (p - draft).clamp(min=0), p)
    return accepted, p


@pytest.mark.parametrize(
    ("broken", "tree"),
    [
        (residual_is_p, CHAIN),
        (residual_is_p, TREE),
        (swapped, CHAIN),
        (swapped, TREE),
        (siblings_not_renormalised, TREE),
    ],
)
def test_a_broken_rule_is_caught(broken, tree, monkeypatch):
    monkeypatch.setattr(acceptance, "accept_siblings", broken)
    assert fits(first_two_tokens(tree, 0, draws=CHUNK), 0) < 1e-9


@pytest.mark.parametrize("tree", [CHAIN, TREE], ids=["chain", "tree"])
def test_softmax_q_on_the_most_likely_tokens_is_caught(tree):
    assert fits(first_two_tokens(tree, 0, drawn=False, draws=CHUNK), 0) < 1e-9


def test_candidates_that_q_does_not_have_are_never_accepted():
    q = torch.tensor([[0.5, 0.5, 0.0, 0.0]]).expand(1000, -1)
    p = torch.tensor([[0.1, 0.1, 0.1, 0.7]]).expand(1000, -1)
    uniforms = torch.rand(1000, 7, generator=torch.Generator().manual_seed(0))
    candidates = draw_distinct(q, uniforms[:, :3])
    assert (candidates[:, :2].sum(1) == 1).all()  # both tokens, each once
    accepted, residuals = accept_siblings(candidates, q, p, uniforms[:, 3:6])
    # the second is all that q has left, and the residual has none of it
    assert set(accepted.tolist()) == {0, 3}
    residual = torch.tensor([0.0, 0.0, 0.125, 0.875], dtype=torch.float64)
    torch.testing.assert_close(residuals[accepted == 3], residual.expand(sum(accepted == 3), -1))


def test_draws_have_the_weights_distribution():
    weights = torch.tensor([[3.0, 0.0, 1.0, 6.0]]).expand(100_000, -1)
    uniforms = torch.rand(100_000, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(draw(weights, uniforms), minlength=4)
    assert counts[1] == 0
    expected = torch.tensor([30_000, 10_000, 60_000])
    assert chi_square(counts[[0, 2, 3]], expected) > P_VALUE
    edge = torch.tensor([0.0, 1 - 1e-12], dtype=torch.float64)
    assert draw(weights[:2], edge).tolist() == [0, 3]


def test_warping_is_temperature_then_top_k_then_top_p():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    divided = Sampling(2.0).probabilities(logits)
    torch.testing.assert_close(divided, (logits / 2).softmax(-1))
    two = Sampling(1.0, top_k=2).probabilities(logits)
    torch.testing.assert_close(two[0, :2], logits[0, :2].softmax(-1))
    assert two[0, 2:].sum() == 0
    nucleus = Sampling(1.0, top_p=0.6).probabilities(logits)
    assert nucleus[0].tolist() == [1, 0, 0, 0]
    assert Sampling(1.0).probabilities(logits[None]).shape == (1, 1, 4)
