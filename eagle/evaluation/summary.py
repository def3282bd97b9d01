"""Metrics, their details, and a table of the prompts, from what was measured."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from eagle.config import Evaluate
from eagle.decoding.speculative import Generation
from eagle.evaluation.decoder import Decoder, fastest_sound
from eagle.evaluation.forecast import Forecast
from eagle.evaluation.intervals import Interval, Rate, interval_over_prompts
from eagle.evaluation.lossless import TIE, LosslessProof, TextComparison
from eagle.evaluation.metrics import (
    RATE_POSITIONS,
    acceptance_length,
    acceptance_rates,
    calls_per_token,
    chain_acceptance_length,
    draft_share,
    other_acceptance_lengths,
    speedup,
    step_cost,
    tokens_per_second,
)
from eagle.evaluation.race import Prompt, Race
from eagle.evaluation.verdict import Verdict, judge_speed


@dataclass
class Measurements:
    """Everything that `evaluate` measures."""

    decoder: Decoder
    race: Race
    samples: list[dict]
    """As `decode_samples` returns them."""
    top1_agreement: Rate
    chains: list[Generation]
    """By a chain of RATE_POSITIONS in float32, at the evaluation's temperature."""
    proof: LosslessProof


@dataclass
class Evaluation:
    settings: Evaluate
    """With numbers in place of `auto`."""
    metrics: dict
    """The keys of results/evaluate/metrics.json, one value each."""
    details: dict
    """Intervals, other definitions, forecasts, groups of prompts, ties."""
    per_prompt: pd.DataFrame
    """A row a prompt."""
    samples: list[dict]
    """As of `Measurements`."""


def summarize(settings: Evaluate, measured: Measurements) -> Evaluation:
    """Compute the figures of an evaluation. Nothing is measured here."""
    return Evaluation(
        settings,
        _metrics(measured, settings.seed),
        _details(settings, measured),
        _per_prompt(measured),
        measured.samples,
    )


def _metrics(measured: Measurements, seed: int) -> dict:
    race = measured.race
    # a clock that was disturbed gives no result
    fault = _verdict(race, seed) == "timing fault"
    rates = acceptance_rates(measured.chains, RATE_POSITIONS)
    return {
        "tau": round(acceptance_length(race.speculative), 4),
        **{f"alpha_{n}": _rounded(rate.value) for n, rate in enumerate(rates)},
        "top1_agreement": _rounded(measured.top1_agreement.value),
        "speedup": None if fault else round(speedup(race.speculative, race.vanilla), 4),
        "tokens_per_second": round(tokens_per_second(race.speculative), 2),
        "lossless": measured.proof.lossless,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _details(settings: Evaluate, measured: Measurements) -> dict:
    decoder, chains, proof, seed = (
        measured.decoder, measured.chains, measured.proof, settings.seed
    )  # fmt: skip
    speculative, vanilla = measured.race.speculative, measured.race.vanilla
    decode_speedup = speedup(speculative, vanilla, prefill=False)
    return {
        "decoder": decoder.describe(),
        "draft_vocabulary": settings.draft_vocabulary,
        "temperature": settings.temperature,
        "steps": sum(len(generation.accepted) for generation in speculative),
        "tau_95": _tau_interval(_drafted(speculative), seed),
        "other_tau": other_acceptance_lengths(speculative),
        "acceptance_by_depth": [
            _rate_row(rate) for rate in acceptance_rates(speculative, decoder.shape.depth)
        ],
        "alpha": [_rate_row(rate) for rate in acceptance_rates(chains, RATE_POSITIONS)],
        "alpha_prompts": len(_drafted(chains)),
        "alpha_steps": sum(len(generation.accepted) for generation in chains),
        "alpha_tau": acceptance_length(chains),
        "alpha_tau_95": _tau_interval(_drafted(chains), seed),
        "engine_chain": _engine_chain(measured),
        "top1_agreement": _rate_row(measured.top1_agreement),
        "measured_speedup": speedup(speculative, vanilla),
        "speedup_95": _speedup_interval(speculative, vanilla, seed),
        "verdict": _verdict(measured.race, seed),
        "speedup_without_prefill": decode_speedup,
        "break_even_tau": step_cost(speculative, vanilla),
        "vanilla_tokens_per_second": tokens_per_second(vanilla),
        "verifier_calls_per_token": calls_per_token(speculative),
        "draft_share": draft_share(speculative),
        "forecasts": [_forecast_row(forecast) for forecast in decoder.forecasts],
        "measured_over_forecast": decode_speedup / decoder.forecasts[0].speedup
        if decoder.forecasts
        else None,
        "by_category": _by_group(lambda prompt: prompt.category, measured.race, seed),
        "by_turn": _by_group(lambda prompt: f"turn {prompt.turn}", measured.race, seed),
        "lossless": _comparison_counts(proof.float32, TIE)
        | {"tokens_each": settings.lossless_tokens},
        f"lossless_{settings.dtype}": _comparison_counts(proof.served, proof.served_tie)
        | {
            "rounding_difference": proof.rounding.difference,
            "rounding_ceiling": proof.rounding.ceiling,
        },
    }


def _verdict(race: Race, seed: int) -> Verdict:
    speculative, vanilla = race.speculative, race.vanilla
    return judge_speed(
        speedup(speculative, vanilla),
        _speedup_interval(speculative, vanilla, seed),
        acceptance_length(speculative),
        step_cost(speculative, vanilla),
    )


def _tau_interval(generations: list[Generation], seed: int) -> Interval | None:
    steps = sum(len(generation.accepted) for generation in generations)
    return interval_over_prompts(acceptance_length, generations, trials=steps, seed=seed, least=1.0)


def _speedup_interval(
    speculative: list[Generation], vanilla: list[Generation], seed: int
) -> Interval | None:
    tokens = sum(len(generation.token_ids) for generation in speculative)
    return interval_over_prompts(speedup, speculative, vanilla, trials=tokens, seed=seed, least=0.0)


def _rate_row(rate: Rate) -> dict:
    return {
        "rate": rate.value,
        "accepted": rate.successes,
        "of": rate.trials,
        "wilson_95": rate.interval,
    }


def _engine_chain(measured: Measurements) -> dict:
    """The chain that an engine is told to draft, with its tau: by the forecast the fastest one.

    Where nothing was forecast, a chain that was stated, or one of RATE_POSITIONS - 1 tokens; its
    tau is then computed from the acceptance rates.
    """
    decoder = measured.decoder
    chosen = fastest_sound(decoder.forecasts, chains=True)
    if chosen is not None:
        return {"length": chosen.shape.depth, "tau": chosen.tau, "from": "forecast"}
    stated = decoder.kind == "chain" and decoder.shape.depth <= RATE_POSITIONS
    length = decoder.shape.depth if stated else RATE_POSITIONS - 1
    tau = chain_acceptance_length(acceptance_rates(measured.chains, RATE_POSITIONS), length)
    return {"length": length, "tau": tau, "from": "acceptance rates"}


def _drafted(generations: list[Generation]) -> list[Generation]:
    """Those in which something was drafted."""
    return [generation for generation in generations if generation.accepted]


def _forecast_row(forecast: Forecast) -> dict:
    return {
        "decoder": forecast.name,
        "tau": forecast.tau,
        "break_even_tau": forecast.step_cost,
        "speedup_without_prefill": forecast.speedup,
    }


def _by_group(key: Callable[[Prompt], str], race: Race, seed: int) -> dict[str, dict]:
    """tau and speed-up of groups of prompts, with their intervals."""
    groups: dict[str, list[int]] = {}
    for number, prompt in enumerate(race.prompts):
        if race.speculative[number].accepted:
            groups.setdefault(key(prompt), []).append(number)
    table = {}
    for group, numbers in groups.items():
        speculative, vanilla = (
            [generations[i] for i in numbers] for generations in (race.speculative, race.vanilla)
        )
        table[group] = {
            "prompts": len(numbers),
            "tau": acceptance_length(speculative),
            "steps": sum(len(generation.accepted) for generation in speculative),
            "tau_95": _tau_interval(speculative, seed),
            "speedup": speedup(speculative, vanilla),
            "speedup_95": _speedup_interval(speculative, vanilla, seed),
        }
    return table


def _comparison_counts(comparisons: list[TextComparison], tie: float) -> dict:
    differing = [comparison for comparison in comparisons if not comparison.identical]
    return {
        "prompts": len(comparisons),
        "identical": len(comparisons) - len(differing),
        "ties": sum(comparison.lossless(tie) for comparison in differing),
        "tie_is_within": tie,
        "differences": [
            {"position": comparison.first_difference, "logit_gap": comparison.logit_gap}
            for comparison in differing
        ],
    }


def _per_prompt(measured: Measurements) -> pd.DataFrame:
    """A row a prompt, with the counts and times from which its and all other figures follow."""
    race, chains = measured.race, measured.chains
    rows = [
        {
            "question_id": prompt.question_id,
            "category": prompt.category,
            "turn": prompt.turn,
            "prompt_tokens": len(prompt.token_ids),
            "new_tokens": len(speculative.token_ids),
            "verify_steps": len(speculative.accepted),
            "accepted": sum(speculative.accepted),
            "tau": acceptance_length([speculative]) if speculative.accepted else None,
            "vanilla_new_tokens": len(vanilla.token_ids),
            "vanilla_seconds": vanilla.seconds,
            "seconds": speculative.seconds,
            "vanilla_tokens_per_second": tokens_per_second([vanilla]),
            "tokens_per_second": tokens_per_second([speculative]),
        }
        for prompt, vanilla, speculative in zip(
            race.prompts, race.vanilla, race.speculative, strict=True
        )
    ]
    for row, generation in zip(rows, chains, strict=False):  # of the first prompts alone
        row["chain_steps"] = len(generation.accepted)
        row["chain_accepted"] = sum(generation.accepted)
    table = pd.DataFrame(rows).round(6)
    counts = ["chain_steps", "chain_accepted"]
    return table.astype(dict.fromkeys(counts, "Int64"))
