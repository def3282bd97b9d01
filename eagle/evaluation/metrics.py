"""Acceptance length, acceptance rates and speed, each by one stated definition."""

import numpy as np

from eagle.decoding.speculative import Generation


def acceptance_length(generations: list[Generation]) -> float:
    """tau: sum of (accepted drafted tokens + 1) over all verify steps / number of steps.

    Pooled over prompts. The prefill and its token are left out; the last step counts what was
    accepted before cutting at stop or length (vLLM's 1 + accepted / drafts).
    """
    accepted = [count for generation in generations for count in generation.accepted]
    return 1 + sum(accepted) / len(accepted)


def other_acceptance_lengths(generations: list[Generation]) -> dict[str, float]:
    """The other definitions of tau in circulation, for comparing with other tools.

    `pooled_new_over_steps_and_prefill` and `pooled_new_over_steps` divide all new tokens, cut at
    stop and length, by verifier steps with and without the prefill; the `mean_` ones average the
    same a prompt (the paper's tables are the last: reference evaluation of SafeAILab/EAGLE).
    """
    spoken = [generation for generation in generations if generation.accepted]
    new = np.array([len(generation.token_ids) for generation in spoken])
    steps = np.array([generation.verifier_steps for generation in spoken])
    return {
        "pooled_new_over_steps_and_prefill": float(new.sum() / (steps + 1).sum()),
        "pooled_new_over_steps": float(new.sum() / steps.sum()),
        "mean_new_over_steps_and_prefill": float((new / (steps + 1)).mean()),
        "mean_new_over_steps": float((new / steps).mean()),
    }


def acceptance_rates(generations: list[Generation], positions: int) -> list[float | None]:
    """Acceptance of drafted token n + 1 given that the n before it were accepted, for n = 0 …
    positions - 1; None where no step came that far.

    Of a CHAIN they are the paper's alpha_n (section 4.1); of a tree, its acceptance by depth. Over
    all positions, 1 + sum_n prod_{i <= n} alpha_i is the same generations' acceptance length.
    """
    accepted = np.array([count for generation in generations for count in generation.accepted])
    rates: list[float | None] = []
    for n in range(positions):
        reached = int((accepted >= n).sum())
        rates.append(float((accepted > n).sum() / reached) if reached else None)
    return rates


def calls_per_token(generations: list[Generation]) -> float:
    """Verifier forwards, the prefill's included, for each new token; vanilla decoding takes 1."""
    calls = sum(generation.verifier_steps + 1 for generation in generations)
    return calls / sum(len(generation.token_ids) for generation in generations)


def draft_share(generations: list[Generation]) -> float:
    """Drafting's share of the time after the prefill."""
    drafting = sum(generation.draft_seconds for generation in generations)
    return drafting / sum(generation.decode_seconds for generation in generations)


def speedup(fast: list[Generation], plain: list[Generation], prefill: bool = True) -> float:
    """Tokens/s over those of vanilla decoding."""
    return tokens_per_second(fast, prefill) / tokens_per_second(plain, prefill)


def tokens_per_second(generations: list[Generation], prefill: bool = True) -> float:
    """New tokens / wall time, pooled over prompts; without prefill its token is left out too."""
    if prefill:
        return sum(len(g.token_ids) for g in generations) / sum(g.seconds for g in generations)
    tokens = sum(len(generation.token_ids) - 1 for generation in generations)
    return tokens / sum(generation.decode_seconds for generation in generations)


def step_cost(fast: list[Generation], plain: list[Generation]) -> float:
    """Time of one draft-and-verify step in vanilla steps: the tau at which drafting breaks even."""

    def seconds_a_step(generations: list[Generation]) -> float:
        return sum(g.decode_seconds for g in generations) / sum(
            g.verifier_steps for g in generations
        )

    return seconds_a_step(fast) / seconds_a_step(plain)


def bootstrap_interval(
    statistic, *samples: list[Generation], seed: int, draws: int = 1000
) -> list[float] | list[list[float] | None]:
    """95% interval of statistic(*samples) when the prompts are drawn again, with replacement.

    Args:
        statistic: gives a number, or a list of numbers and None; of a list each place has its
            interval, from the draws that have a number there, or None.
        samples: lists of equal length, one generation a prompt in the same order.
    """
    generator = np.random.default_rng(seed)
    count = len(samples[0])
    values = []
    for _ in range(draws):
        chosen = generator.integers(count, size=count)
        values.append(statistic(*([sample[i] for i in chosen] for sample in samples)))
    if not isinstance(values[0], list):
        return _interval(values)
    places = (
        [value for value in place if value is not None] for place in zip(*values, strict=True)
    )
    return [_interval(place) if place else None for place in places]


def _interval(values: list[float]) -> list[float]:
    return [float(bound) for bound in np.percentile(values, [2.5, 97.5])]
