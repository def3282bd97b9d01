"""Paired differences between drafts that answered the same prompts."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import pandas as pd

from eagle.errors import InputError
from eagle.evaluation.intervals import Interval, interval_over_prompts

PROMPT = ["question_id", "turn", "prompt_tokens"]
"""The columns that say which prompt a row is of."""
SAME = ("bench", "system_prompt", "maximum_new_tokens", "temperature", "top_p", "top_k",
        "lossless_tokens", "dtype")  # fmt: skip
"""Settings that two evaluations must share, or their prompts or texts are not the same."""


class Evaluated(NamedTuple):
    """One draft's results, as the stage `evaluate` wrote them."""

    name: str
    per_prompt: pd.DataFrame
    provenance: dict


class Difference(NamedTuple):
    """A measure of two drafts on the same prompts."""

    measure: str
    first: str
    second: str
    value_first: float
    value_second: float
    difference: float
    """Second minus first."""
    interval: Interval | None
    """95%, of the difference, over pairs of a prompt; None for a single prompt."""
    prompts: int


Sum = Callable[[str], float]
"""The sum of a column of per_prompt.csv over prompts."""


def _tau(total: Sum) -> float:
    return 1 + total("accepted") / total("verify_steps")


def _chain_tau(total: Sum) -> float:
    return 1 + total("chain_accepted") / total("chain_steps")


def _speedup(total: Sum) -> float:
    vanilla = total("vanilla_new_tokens") / total("vanilla_seconds")
    return total("new_tokens") / total("seconds") / vanilla


MEASURES: dict[str, tuple[Callable[[Sum], float], str]] = {
    "tau": (_tau, "verify_steps"),
    "tau of a chain of five": (_chain_tau, "chain_steps"),
    "speed-up": (_speedup, "new_tokens"),
}
"""Each measure, by the definition in eagle/evaluation/metrics.py, and the column of its trials."""


def differences(drafts: Sequence[Evaluated], seed: int = 0) -> list[Difference]:
    """Every measure of every draft beside that of the first one.

    Both drafts answer each prompt, so what makes it easy for both cancels. So does the speed of the
    machine in the speed-up: each draft is held against its own run's vanilla decoding.

    Raises:
        InputError: two evaluations are not of the same verifier, prompts and lengths.
    """
    found = []
    first = drafts[0]
    for second in drafts[1:]:
        _check_same(first, second)
        pairs = pd.merge(
            first.per_prompt, second.per_prompt, on=PROMPT, suffixes=("_1", "_2")
        ).to_dict("records")
        found += [
            difference
            for measure in MEASURES
            if (difference := _difference(measure, first.name, second.name, pairs, seed))
        ]
    return found


def _difference(
    measure: str, first: str, second: str, pairs: list[dict], seed: int
) -> Difference | None:
    """None where the two have no prompt in common on which something was drafted."""
    statistic, counted = MEASURES[measure]
    columns = [f"{counted}_{side}" for side in (1, 2)]
    pairs = [pair for pair in pairs if all(pair[column] > 0 for column in columns)]  # NaN is not
    if not pairs:
        return None

    def of(side: int, pairs: Sequence[dict]) -> float:
        return statistic(lambda column: sum(pair[f"{column}_{side}"] for pair in pairs))

    one, two = of(1, pairs), of(2, pairs)
    # shifted by a constant, so that the least width is a share of the measure and not of a
    # difference that may be nothing
    shifted = interval_over_prompts(
        lambda pairs: two + of(2, pairs) - of(1, pairs),
        pairs,
        trials=int(min(sum(pair[column] for pair in pairs) for column in columns)),
        seed=seed,
    )
    interval = shifted and [bound - two for bound in shifted]
    return Difference(measure, first, second, one, two, two - one, interval, len(pairs))


def _check_same(first: Evaluated, second: Evaluated) -> None:
    one, two = first.provenance, second.provenance
    for name in ("verifier", "bench"):
        if one["inputs"][name] != two["inputs"][name]:
            raise InputError(
                f"{first.name} and {second.name} were evaluated with another {name} each "
                f"({one['inputs'][name][:12]}, {two['inputs'][name][:12]}): nothing to compare"
            )
    for name in SAME:
        if one["parameters"][name] != two["parameters"][name]:
            raise InputError(
                f"evaluate.{name} was {one['parameters'][name]} for {first.name} and "
                f"{two['parameters'][name]} for {second.name}; evaluate both alike"
            )
    prompts = [draft.per_prompt[PROMPT].values.tolist() for draft in (first, second)]
    if prompts[0] != prompts[1]:
        raise InputError(
            f"{first.name} and {second.name} did not answer the same prompts "
            f"({len(prompts[0])} and {len(prompts[1])} of them); evaluate both alike"
        )
