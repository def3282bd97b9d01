"""Acceptance length, acceptance rates and speed, each by one stated definition."""

import numpy as np

from eagle.decoding.speculative import Generation
from eagle.evaluation.intervals import Rate

RATE_POSITIONS = 5
"""alpha_0 … alpha_4 are the acceptance rates of a chain of five drafted tokens, as in the paper."""


def acceptance_length(generations: list[Generation]) -> float:
    """tau: sum of (accepted drafted tokens + 1) over all verify steps / number of steps.

    Pooled over prompts. The prefill and its token are left out; the last step counts what was
    accepted before the text was cut at stop or length (vLLM's 1 + accepted / drafts).
    """
    accepted = [count for generation in generations for count in generation.accepted]
    return 1 + sum(accepted) / len(accepted)


def other_acceptance_lengths(generations: list[Generation]) -> dict[str, float]:
    """The other definitions of tau in circulation, for a comparison with other tools.

    `pooled_new_over_steps_and_prefill` and `pooled_new_over_steps` divide all new tokens, cut at
    stop and length, by verifier steps with and without the prefill; the `mean_` ones take that
    ratio for each prompt and average it. The paper's tables use the last one (the official
    evaluation of SafeAILab/EAGLE).
    """
    drafted = [generation for generation in generations if generation.accepted]
    new = np.array([len(generation.token_ids) for generation in drafted])
    steps = np.array([generation.verifier_steps for generation in drafted])
    return {
        "pooled_new_over_steps_and_prefill": float(new.sum() / (steps + 1).sum()),
        "pooled_new_over_steps": float(new.sum() / steps.sum()),
        "mean_new_over_steps_and_prefill": float((new / (steps + 1)).mean()),
        "mean_new_over_steps": float((new / steps).mean()),
    }


def acceptance_rates(generations: list[Generation], positions: int) -> list[Rate]:
    """Acceptance of drafted token n + 1 given that the n before it were accepted.

    For n = 0 … positions - 1; its trials are the steps that accepted at least n tokens. Of a CHAIN
    these are the paper's alpha_n (section 4.1); of a tree, its acceptance by depth. Over all
    positions, 1 + sum_n prod_{i <= n} alpha_i is the acceptance length of the same generations.
    """
    accepted = np.array([count for generation in generations for count in generation.accepted])
    return [Rate(int((accepted > n).sum()), int((accepted >= n).sum())) for n in range(positions)]


def chain_acceptance_length(rates: list[Rate], length: int) -> float:
    """The tau of a chain of `length` drafted tokens, from the rates of one that is no shorter."""
    reached, tau = 1.0, 1.0
    for rate in rates[:length]:
        reached *= rate.value or 0.0  # where no step came, none would have gone on
        tau += reached
    return tau


def calls_per_token(generations: list[Generation]) -> float:
    """Verifier forwards for each new token, the prefill's included; vanilla decoding takes 1."""
    calls = sum(generation.verifier_steps + 1 for generation in generations)
    return calls / sum(len(generation.token_ids) for generation in generations)


def draft_share(generations: list[Generation]) -> float:
    """The share of the time after the prefill that drafting takes."""
    drafting = sum(generation.draft_seconds for generation in generations)
    return drafting / sum(generation.decode_seconds for generation in generations)


def speedup(
    speculative: list[Generation], vanilla: list[Generation], prefill: bool = True
) -> float:
    """Tokens/s over those of vanilla decoding."""
    return tokens_per_second(speculative, prefill) / tokens_per_second(vanilla, prefill)


def tokens_per_second(generations: list[Generation], prefill: bool = True) -> float:
    """New tokens / wall time, pooled over prompts; without prefill its token is left out too."""
    if prefill:
        return sum(len(g.token_ids) for g in generations) / sum(g.seconds for g in generations)
    tokens = sum(len(generation.token_ids) - 1 for generation in generations)
    return tokens / sum(generation.decode_seconds for generation in generations)


def step_cost(speculative: list[Generation], vanilla: list[Generation]) -> float:
    """Time of a draft-and-verify step over that of a vanilla step: the tau that breaks even."""

    def seconds_a_step(generations: list[Generation]) -> float:
        return sum(g.decode_seconds for g in generations) / sum(
            g.verifier_steps for g in generations
        )

    return seconds_a_step(speculative) / seconds_a_step(vanilla)
