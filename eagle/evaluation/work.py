"""How much work the parts of an evaluation are, so that the time left counts all of them.

The unit is a step: one token of one prompt by vanilla decoding in the precision that serves. The
sizes below were taken from the times of the default evaluation on two CPU cores; on another machine
the parts are in another proportion, and what is said of the time left mends itself as they pass.
"""

from eagle.config import Evaluate

CHOICE = 500
"""Steps of the choice of a decoder (eagle/evaluation/forecast.py), whose texts and rounds are
always as many."""
RACE = 1.75
"""Steps for each token of a reply: vanilla decoding, and a draft-and-verify step for each accepted
group of tokens."""
SPECULATIVE = 0.75
"""The part of it that is speculative decoding."""
SAMPLES, SAMPLE_TOKENS = 3, 64
"""How many texts are decoded for people to read, and at most how many tokens of each."""
CHAINS = 1.6
"""The same for a chain's reply in float32, which reads weights of twice the size."""
PROOF = 0.7
"""The same for transformers' reply, in one batch with the others, and the comparison."""
TOKENS_AT_ONCE = 28
"""Tokens of a text that is only read, which cost as much as a step."""


def of_race(settings: Evaluate) -> float:
    """Steps of one prompt of the race."""
    return RACE * settings.maximum_new_tokens


def of_sample(settings: Evaluate) -> float:
    """Steps of one text that is shown step by step."""
    return SPECULATIVE * min(settings.maximum_new_tokens, SAMPLE_TOKENS)


def of_chain(settings: Evaluate) -> float:
    """Steps of one prompt's chain in float32."""
    return CHAINS * settings.lossless_tokens


def of_proof(settings: Evaluate, prompts: int) -> float:
    """Steps of the comparison of `prompts` chains with transformers' texts."""
    return PROOF * settings.lossless_tokens * prompts


def of_agreement(tokens: int) -> float:
    """Steps of reading a held-out text."""
    return tokens / TOKENS_AT_ONCE


def of_all(settings: Evaluate, prompts: int, held_out_tokens: int, chooses: bool) -> float:
    """Steps of a whole evaluation.

    Args:
        prompts: of the race, one for each turn of the questions.
        chooses: whether a decoder is chosen first.
    """
    proven = min(prompts, settings.lossless_prompts)
    return (
        CHOICE * chooses
        + of_race(settings) * prompts
        + of_sample(settings) * min(prompts, SAMPLES)
        + of_agreement(held_out_tokens)
        + of_chain(settings) * proven
        + of_proof(settings, proven)
    )
