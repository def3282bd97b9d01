"""The prompts behind the shipped sample, from resources/prompts/sample.yaml.

Nothing here is random: the same file always gives the same conversations with the same ids.
"""

from collections.abc import Iterator
from pathlib import Path

import yaml

PROMPTS = Path(__file__).parents[1] / "resources/prompts/sample.yaml"


def training_prompts() -> list[dict]:
    """The conversations whose replies the shipped draft is trained on, all categories in order.

    Returns:
        Dicts of `id`, `category`, `system` (None where there is no system turn) and `turns`, the
        user's texts.
    """
    categories = yaml.safe_load(PROMPTS.read_text(encoding="utf-8"))["training"]
    return [row for name, category in categories.items() for row in _conversations(name, category)]


def bench_prompts() -> list[dict]:
    """The held-out prompts in MT-bench's schema: `question_id`, `category`, `turns`."""
    categories = yaml.safe_load(PROMPTS.read_text(encoding="utf-8"))["bench"]
    prompts = [(category, turns) for category, group in categories.items() for turns in group]
    return [
        {"question_id": number, "category": category, "turns": turns}
        for number, (category, turns) in enumerate(prompts, start=1)
    ]


def _conversations(name: str, category: dict) -> Iterator[dict]:
    """One conversation for each first turn; 7 in 20 gain follow-ups, 2 in 13 a system turn."""
    follow_ups, systems = category["follow_ups"], category["systems"]
    used = 0
    for index, first in enumerate(_first_turns(category["first_turns"])):
        turns = [first]
        if index * 7 % 20 < 7:
            turns.append(follow_ups[used % len(follow_ups)])
            if used % 3 == 2:
                turns.append(follow_ups[(used + len(follow_ups) // 2) % len(follow_ups)])
            used += 1
        system = systems[index // 6 % len(systems)] if index * 2 % 13 < 2 else None
        yield {"id": f"{name}-{index + 1:03d}", "category": name, "system": system, "turns": turns}


def _first_turns(groups: list[dict]) -> Iterator[str]:
    """Every subject in one phrasing of its group; the phrasings are taken in turn."""
    for group in groups:
        phrasings = group["phrasings"]
        blanks = (texts for subject in group["subjects"] for texts in _blanks(subject))
        for index, texts in enumerate(blanks):
            yield phrasings[index % len(phrasings)].format(*texts)


def _blanks(subject: str | list[str] | dict) -> list[list[str]]:
    """What a subject puts into the blanks of a phrasing, once or once for each of its questions."""
    if isinstance(subject, dict):
        return [[question, subject["text"]] for question in subject["questions"]]
    return [subject if isinstance(subject, list) else [subject]]
