"""Vanilla and speculative decoding on the same prompts, in turn."""

from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from eagle.config import Evaluate
from eagle.decoding.speculative import Decoders, Generation
from eagle.decoding.tree import DynamicTree, Tree
from eagle.evaluation.work import of_race
from eagle.system_prompts import system_turn
from eagle.template.template import encode_prompt
from eagle.tracking import Progress


@dataclass
class Prompt:
    question_id: int | str
    category: str
    turn: int
    """Number of the question's turn, from 1."""
    token_ids: list[int]


@dataclass
class Race:
    """The prompts, and for each the generation of either decoder."""

    prompts: list[Prompt] = field(default_factory=list)
    vanilla: list[Generation] = field(default_factory=list)
    speculative: list[Generation] = field(default_factory=list)


def race_decoders(
    questions: list[dict],
    decoders: Decoders,
    shape: Tree | DynamicTree,
    template: str,
    tokenizer: PreTrainedTokenizerBase,
    settings: Evaluate,
    progress: Progress,
) -> Race:
    """Let both decoders reply in turn to every turn of every question.

    A later turn follows vanilla's replies to the earlier ones.

    Args:
        questions: in MT-bench's schema.
        shape: what speculative decoding drafts in each step.

    Raises:
        InputError: settings.system_prompt does not exist, or a prompt is too long.
    """
    length = settings.maximum_new_tokens
    opening = system_turn(settings.system_prompt)
    race = Race()
    for question in questions:
        messages = list(opening)
        for turn, text in enumerate(question["turns"], start=1):
            messages.append({"role": "user", "content": text})
            ids = encode_prompt(tokenizer, template, messages)
            if not race.prompts:  # the first calls also pay for allocation and cold caches
                decoders.vanilla(ids, 4)
                decoders.speculate(ids, 4, shape)
            race.prompts.append(Prompt(question["question_id"], question["category"], turn, ids))
            reference = decoders.vanilla(ids, length)
            race.vanilla.append(reference)
            race.speculative.append(decoders.speculate(ids, length, shape))
            reply = tokenizer.decode(reference.token_ids, skip_special_tokens=True)
            messages.append({"role": "assistant", "content": reply})
            progress.advance(of_race(settings), note="speed")
    return race
