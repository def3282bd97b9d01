"""Choose the chat template and, where the verifier's own has no markers, put them in."""

import re
from dataclasses import replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from eagle.errors import InputError
from eagle.template.proof import PROBES, prove_on_probes, renders_alike
from eagle.template.template import (
    MARKER,
    ChosenTemplate,
    Refused,
    is_marked,
    load_template,
    own_template,
    render,
)

# Marked templates of known model families, one file each.
FAMILIES = Path(__file__).parents[2] / "resources" / "chat_templates"
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
    file: str | None, tokenizer: PreTrainedTokenizerBase, stop_token_ids: list[int]
) -> ChosenTemplate:
    """Choose a template with generation markers and prove it on the probes.

    It is the template in `file`. If `file` is None, it is the verifier's own if that has markers;
    else the template of a known family that renders the same text; else the verifier's own with
    markers put in. Markers of the verifier's own template that fail the proof are removed first
    (SmolLM3's also cover the header of a turn).

    Raises:
        InputError: there is no template, or none that passes the proof; the message says what
            differs.
    """
    own = own_template(tokenizer)
    if file is not None:
        chosen = ChosenTemplate(load_template(file, tokenizer), file)
    elif own is None:
        raise InputError(
            "the verifier has no chat template of its own; set template.file to a template with "
            f"{MARKER} markers (resources/chat_templates has those of {', '.join(_families())})"
        )
    elif is_marked(own, "the verifier's own chat template"):
        chosen = ChosenTemplate(own, "the verifier's own")
        try:
            prove_on_probes(tokenizer, chosen, stop_token_ids)
        except InputError as fault:
            # replaced by other tags, because Jinja trims the same white space around any tag
            unmarked = GENERATION_TAG.sub(
                lambda tag: f"{tag[1]}{'endif' if tag[2] else 'if true'}{tag[3]}", own
            )
            try:
                chosen = _newly_marked(tokenizer, unmarked, stop_token_ids)
            except InputError as reason:
                raise InputError(f"{fault}; and with its markers taken out, {reason}") from None
            chosen = replace(chosen, origin=f"{chosen.origin} (its own fail: {fault})")
    else:
        chosen = _newly_marked(tokenizer, own, stop_token_ids)
    prove_on_probes(tokenizer, chosen, stop_token_ids)
    return chosen


def _newly_marked(
    tokenizer: PreTrainedTokenizerBase, own: str, stop_token_ids: list[int]
) -> ChosenTemplate:
    """A marked template for an unmarked one: its family's, or itself with markers put in."""
    return _family(tokenizer, own) or _with_markers(tokenizer, own, stop_token_ids)


def _families() -> list[str]:
    return sorted(path.stem for path in FAMILIES.glob("*.jinja"))


def _family(tokenizer: PreTrainedTokenizerBase, own: str) -> ChosenTemplate | None:
    """The family's template that renders every probe as the verifier's own does, if any."""
    for name in _families():
        text = (FAMILIES / f"{name}.jinja").read_text(encoding="utf-8").removesuffix("\n")
        if _is_the_family(tokenizer, text, own):
            return ChosenTemplate(text, f"the family {name}")
    return None


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


def _with_markers(
    tokenizer: PreTrainedTokenizerBase, own: str, stop_token_ids: list[int]
) -> ChosenTemplate:
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
    text = WITH_MARKERS.replace("<END>", repr(end)).replace("<BODY>", body)
    return ChosenTemplate(text, "the verifier's own, with markers put in")
