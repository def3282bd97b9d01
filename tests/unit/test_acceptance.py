"""The acceptance rules, by their distributions; and broken rules, which the same tests catch."""

import pytest
import torch

from eagle.acceptance import Sampling, accept_greedy, accept_sampled, draw

VOCABULARY, DRAWS, TESTS = 12, 1_000_000, 8
"""One rejection in a thousand runs of all tests together, if every rule is right."""
P_VALUE = 1e-3 / TESTS


def test_accepted_is_the_length_of_the_agreeing_beginning():
    chosen = torch.tensor([5, 6, 7, 8])
    for drafted, accepted in (([5, 6, 7], 3), ([5, 0, 7], 1), ([0, 6, 7], 0)):
        assert accept_greedy(torch.tensor(drafted), chosen) == accepted


def distributions(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """q [2, V] and p [3, V], far from one another; the later ones depend on nothing drafted."""
    generator = torch.Generator().manual_seed(seed)
    logits = 1.5 * torch.randn(5, VOCABULARY, generator=generator)
    probabilities = logits.double().softmax(-1)
    return probabilities[:2], probabilities[2:]


def first_two_tokens(rule, seed: int) -> torch.Tensor:
    """Counts [V, V] of the first two tokens of DRAWS texts written by a chain of two."""
    q, p = distributions(seed)
    generator = torch.Generator().manual_seed(100 + seed)
    counts = torch.zeros(VOCABULARY * VOCABULARY)
    for _ in range(10):
        size = DRAWS // 10
        uniforms = torch.rand(size, 6, generator=generator, dtype=torch.float64)
        drafted = torch.stack([draw(q[i].expand(size, -1), uniforms[:, i]) for i in (0, 1)], 1)
        accepted, on_top = rule(
            drafted, q.expand(size, -1, -1), p.expand(size, -1, -1), uniforms[:, 2:5]
        )
        # where the first token was not accepted, the second comes from the next step: plainly p
        plain = draw(p[1].expand(size, -1), uniforms[:, 5])
        first = torch.where(accepted > 0, drafted[:, 0], on_top)
        second = torch.where(accepted > 1, drafted[:, 1], torch.where(accepted == 1, on_top, plain))
        counts += torch.bincount(first * VOCABULARY + second, minlength=len(counts))
    return counts


def chi_square(counts: torch.Tensor, expected: torch.Tensor) -> float:
    """p-value of Pearson's test."""
    statistic = ((counts - expected) ** 2 / expected).sum().double()
    freedom = torch.tensor((len(counts) - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(freedom, statistic / 2))


def fits(rule, seed: int) -> float:
    """p-value of the chi-square test against the verifier's own distribution."""
    _, p = distributions(seed)
    expected = (p[0][:, None] * p[1][None]).flatten() * DRAWS
    return chi_square(first_two_tokens(rule, seed), expected)


@pytest.mark.parametrize("seed", [0, 1])
def test_sampled_text_has_the_verifiers_distribution(seed):
    assert fits(accept_sampled, seed) > P_VALUE


def without_residual(drafted, draft, verifier, uniforms):
    accepted, _ = accept_sampled(drafted, draft, verifier, uniforms)
    return accepted, draw(verifier[torch.arange(len(drafted)), accepted], uniforms[:, -1])


def swapped(drafted, draft, verifier, uniforms):
    count = drafted.shape[1]
    p = verifier[:, :count].gather(2, drafted[:, :, None])[..., 0]
    q = draft.gather(2, drafted[:, :, None])[..., 0]
    accepted = (uniforms[:, :count] * p < q).long().cumprod(1).sum(1)
    drafts = torch.cat([draft, torch.zeros_like(draft[:, :1])], dim=1)
    rows = torch.arange(len(drafted))
    residual = (verifier[rows, accepted] - drafts[rows, accepted]).clamp(min=0)
    return accepted, draw(residual, uniforms[:, count])


@pytest.mark.parametrize("broken", [without_residual, swapped])
def test_a_broken_rule_is_caught(broken):
    assert fits(broken, 0) < 1e-9


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
    plain = Sampling(2.0).probabilities(logits)
    torch.testing.assert_close(plain, (logits / 2).softmax(-1))
    two = Sampling(1.0, top_k=2).probabilities(logits)
    torch.testing.assert_close(two[0, :2], logits[0, :2].softmax(-1))
    assert two[0, 2:].sum() == 0
    nucleus = Sampling(1.0, top_p=0.6).probabilities(logits)
    assert nucleus[0].tolist() == [1, 0, 0, 0]
    assert Sampling(1.0).probabilities(logits[None]).shape == (1, 1, 4)
