"""What `auto` is in the settings of an evaluation, on this device and for these questions."""

from eagle.config import Evaluate
from eagle.draft.automatic import automatic_size
from eagle.questions import read_questions, spread

GPU_QUESTIONS, GPU_TOKENS = 80, 256
"""The paper's number of questions, and replies of some length."""
CPU_TURNS, CPU_TOKENS = 20, 64
"""Turns to answer, and tokens of a reply: what has intervals of use and takes a minute with a small
model."""
FIELDS = ("questions", "maximum_new_tokens", "draft_vocabulary")


def resolved(settings: Evaluate, device: str) -> Evaluate:
    """The settings with numbers in place of `auto`.

    Args:
        device: cpu or cuda.

    Raises:
        InputError: the questions cannot be read.
    """
    cuda = device == "cuda"
    values = {"draft_vocabulary": automatic_size(settings.draft_vocabulary, device)}
    if settings.questions == "auto":
        rows = read_questions(settings.bench)
        values["questions"] = min(GPU_QUESTIONS, len(rows)) if cuda else _for_turns(rows)
    if settings.maximum_new_tokens == "auto":
        values["maximum_new_tokens"] = GPU_TOKENS if cuda else CPU_TOKENS
    return settings.model_copy(update=values)


def named_choices(asked: Evaluate, found: Evaluate, device: str) -> str:
    """One line on what `auto` became; empty where nothing is `auto`."""
    values = {name: getattr(found, name) for name in FIELDS if getattr(asked, name) == "auto"}
    if not values:
        return ""
    named = ", ".join(f"{n} {'all' if v is None else f'{v:,}'}" for n, v in values.items())
    return f"evaluate: auto on a {'GPU' if device == 'cuda' else 'CPU'}: {named}"


def _for_turns(rows: list[dict]) -> int:
    """The fewest questions, spread over all, that have CPU_TURNS turns together."""
    for count in range(1, len(rows)):
        if sum(len(row["turns"]) for row in spread(rows, count)) >= CPU_TURNS:
            return count
    return len(rows)
