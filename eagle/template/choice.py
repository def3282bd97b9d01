"""Choose the chat template and, where the verifier's own has no markers, put them in."""

import re
from dataclasses import replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from eagle.errors import InputError
from eagle.template.date import dated
from eagle.template.proof import PROBES, prove_on_probes, renders_alike
from eagle.template.stop_tokens import check_stop_tokens
from eagle.template.template import (
    MARKER,
    ChosenTemplate,
    Refused,
    is_marked,
    marked_template,
    own_template,
    read_template,
    render,
)

# Marked templates of known model families, one file each.
FAMILIES = Path(__file__).parents[2] / "resources" / "chat_templates"
OWN = "the verifier's own chat template"
GENERATION_TAG = re.compile(r"({%[-+]?\s*)(end)?generation(\s*[-+]?%})")

# A template with markers around the replies of the verifier's own template, which becomes a macro.
# The reply with its end token and the text between turns is the difference of two renderings of the
# macro: of the conversation up to the reply, and of the prompt for the reply. `<BODY>` must begin a
# line, because the verifier's own template does so in its file.
WITH_MARKERS = """\
{% macro render(messages, add_generation_prompt) %}
<BODY>{{ '' }}{% endmacro %}
{% set whole = render(messages, add_generation_prompt) %}
{% set shown = namespace(length=0) %}
{% for message in messages %}
{% if message['role'] == 'assistant' %}
{% set prompt = render(messages[:loop.index0], true) %}
{% set turn = render(messages[:loop.index], false)[prompt | length:] %}
{% set end = (prompt + turn.rsplit(<END>, 1)[0] + <END>) | length %}
{{ whole[shown.length:prompt | length] }}\
{% generation %}{{ whole[prompt | length:end] }}{% endgeneration %}
{% set shown.length = end %}
{% endif %}
{% endfor %}
{{ whole[shown.length:] }}"""


def choose_template(
    file: str | None,
    tokenizer: PreTrainedTokenizerBase,
    stop_token_ids: list[int],
    date: str | None = None,
) -> ChosenTemplate:
    """Choose a template with generation markers and prove it on the probes.

    It is the template in `file`. If `file` is None, it is the verifier's own if that has markers;
    else the template of a known family that renders the same text; else the verifier's own with
    markers put in. Markers of the verifier's own template that fail the proof are removed first
    (SmolLM3's also cover the header of a turn).

    Args:
        stop_token_ids: tokens that end a reply (`eagle.tokens.tokenizer.stop_token_ids`).
        date: the day that templates write in the place of today, YYYY-MM-DD; None refuses templates
            that write one (`eagle.template.date`).

    Raises:
        InputError: there is no template, or none that passes the proof; the message says what
            differs.
    """
    own = own_template(tokenizer)
    if own is not None:
        own = dated(tokenizer, own, date, OWN)
    if file is not None:
        text = dated(tokenizer, marked_template(file), date, file)
        chosen = ChosenTemplate(text, file, own or text)
        check_stop_tokens(tokenizer, chosen.served, stop_token_ids)
    elif own is None:
        raise InputError(
            "the verifier has no chat template of its own; set template.file to a template with "
            f"{MARKER} markers (resources/chat_templates has those of {', '.join(_families())})"
        )
    else:
        check_stop_tokens(tokenizer, own, stop_token_ids)
        chosen = _marked(tokenizer, own, stop_token_ids, date)
    prove_on_probes(tokenizer, chosen, stop_token_ids)
    return chosen


def _marked(
    tokenizer: PreTrainedTokenizerBase, own: str, stop_token_ids: list[int], date: str | None
) -> ChosenTemplate:
    """The verifier's own template if its markers pass the proof, or a newly marked one."""
    if not is_marked(own, OWN):
        return _newly_marked(tokenizer, own, own, stop_token_ids, date)
    chosen = ChosenTemplate(own, "the verifier's own", own)
    try:
        prove_on_probes(tokenizer, chosen, stop_token_ids)
    except InputError as fault:
        unmarked = GENERATION_TAG.sub(
            lambda tag: f"{tag[1]}{'endif' if tag[2] else 'if true'}{tag[3]}", own
        )
        try:
            chosen = _newly_marked(tokenizer, unmarked, own, stop_token_ids, date)
        except InputError as reason:
            raise InputError(f"{fault}; and with its markers taken out, {reason}") from None
        chosen = replace(chosen, origin=f"{chosen.origin} (its own fail: {fault})")
    return chosen


def _newly_marked(
    tokenizer: PreTrainedTokenizerBase,
    unmarked: str,
    served: str,
    stop_token_ids: list[int],
    date: str | None,
) -> ChosenTemplate:
    """A marked template for an unmarked one: its family's, or itself with markers put in."""
    for name in _families():
        path = FAMILIES / f"{name}.jinja"
        try:
            family = dated(tokenizer, read_template(path), date, path.name)
        except InputError:  # it writes the date, and the verifier's own, which is dated, does not
            continue
        if _is_the_family(tokenizer, family, unmarked):
            return ChosenTemplate(family, f"the family {name}", served)
    text = _with_markers(tokenizer, unmarked, stop_token_ids)
    return ChosenTemplate(text, "the verifier's own, with markers put in", served)


def _families() -> list[str]:
    return sorted(path.stem for path in FAMILIES.glob("*.jinja"))


def _is_the_family(tokenizer: PreTrainedTokenizerBase, template: str, own: str) -> bool:
    rendered = 0
    for name, messages in PROBES.items():
        try:
            renders_alike(tokenizer, template, own, messages, name)
            rendered += 1
        except Refused:  # both templates refuse the probe
            continue
        except InputError:
            return False
    return rendered > 0


def _with_markers(tokenizer: PreTrainedTokenizerBase, own: str, stop_token_ids: list[int]) -> str:
    """The verifier's own template inside WITH_MARKERS.

    Raises:
        InputError: the template does not write a stop token after a reply.
    """
    messages = PROBES["plain"]
    prompt = render(tokenizer, own, messages[:-1], True)
    turn = render(tokenizer, own, messages, False)[len(prompt) :]
    ends = [end for end in map(tokenizer.decode, stop_token_ids) if end in turn]
    if not ends:
        raise InputError(
            f"the verifier's own chat template has no {MARKER} markers, is none of the known "
            f"families' ({', '.join(_families())}), and puts none of the tokens that end a reply "
            f"after one: it renders {turn!r} after the prompt {prompt[-60:]!r}; set template.file "
            "to a marked template"
        )
    end = min(ends, key=turn.index)
    body = own.removesuffix("\n")  # Jinja does not output the newline at the end of a template
    return WITH_MARKERS.replace("<END>", repr(end)).replace("<BODY>", body)
