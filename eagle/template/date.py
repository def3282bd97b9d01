"""A fixed day in the place of today, for chat templates that write the date.

Some templates write the day on which they are rendered into the prompt (Llama 3.2's, SmolLM3's,
Mistral Small's), so that the same conversations would be other tokens tomorrow. `dated` puts a
definition of what they ask for in front of them, as of one day. The day is then a part of the
template's text: of every hash of it, and of all that renders it, which are the proof, the tokens,
the replies, the evaluation, and a server that is started with results/template/chat_template.jinja
as its chat template.
"""

from datetime import datetime

from transformers import PreTrainedTokenizerBase

from eagle.errors import InputError
from eagle.template.proof import PROBES
from eagle.template.template import Refused, render

# Two moments that differ in everything that a format can write.
MOMENTS = (datetime(2001, 2, 3, 4, 5, 6), datetime(2024, 12, 25, 21, 43, 19))
# Of strftime; with a minus, numbers have no leading zero.
DIRECTIVES = [f"%{letter}" for letter in "aAbBcdDeFGhHIjmMpRSTuUVwWxXyYZz"]
DIRECTIVES += [f"%-{letter}" for letter in "dHIjmMSy"]
# The variable from which Llama's templates take the date, and its form there. Some have a date of
# their own if it is not given; it is defined for those alone that do not render without it.
VARIABLE, FORMAT = "date_string", "%d %b %Y"


def dated(tokenizer: PreTrainedTokenizerBase, template: str, date: str | None, where: str) -> str:
    """The template as of a day; unchanged if it writes no date.

    Args:
        date: YYYY-MM-DD; None if no day is stated.
        where: the template's name, with which an error's message begins.

    Raises:
        InputError: the template writes the date, and no day is stated.
    """
    if "strftime_now" not in template and VARIABLE not in template:
        return template
    with_variable = not any(_rendered(tokenizer, _as_of(template, MOMENTS[0], False)))
    first, second = (
        _rendered(tokenizer, _as_of(template, moment, with_variable)) for moment in MOMENTS
    )
    if first == second:
        return template
    if date is None:
        raise InputError(
            f"{where}: writes today's date into the prompt, so the same conversations would be "
            "other tokens tomorrow; set template.date to the day that it shall write, such as "
            '"2024-07-26"'
        )
    return _as_of(template, datetime.fromisoformat(date), with_variable)


def _as_of(template: str, moment: datetime, with_variable: bool) -> str:
    """The template with transformers' `strftime_now`, or the variable, defined for a moment."""
    written = "".join(f" | replace({d!r}, {moment.strftime(d)!r})" for d in DIRECTIVES)
    # no line between them: transformers' settings take away the line break after a block
    start = "{% macro strftime_now(format) %}{{ format" + written + " }}{% endmacro %}\n"
    if with_variable:
        start += "{% set " + f"{VARIABLE} = {moment.strftime(FORMAT)!r}" + " %}\n"
    return start + template


def _rendered(tokenizer: PreTrainedTokenizerBase, template: str) -> list[str]:
    """The text of all probes that the template accepts, and of the prompts for their replies."""
    texts = []
    for messages in PROBES.values():
        for shown, prompt_only in ((messages, False), (messages[:-1], True)):
            try:
                texts.append(render(tokenizer, template, shown, prompt_only))
            except Refused:
                continue
    return texts
