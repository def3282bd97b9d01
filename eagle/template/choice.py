"""Which template is used: a file's, the verifier's own, its family's, or its own with markers put in."""

import re
from dataclasses import replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from eagle.errors import InputError
from eagle.template.proof import PROBES, ChosenTemplate, prove_on_probes, renders_alike
from eagle.template.template import (
    MARKER,
    Refused,
    is_marked,
    load_template,
    own_template,
    render,
)

FAMILIES = Path(__file__).parents[2] / "resources" / "chat_templates"


GENERATION_TAG = re.compile(r"({%[-+]?\s*)(end)?generation(\s*[-+]?%})")


def choose_template(
    file: str | None, tokenizer: PreTrainedTokenizerBase, stop_token_ids: list[int]
) -> ChosenTemplate:
    """The file's template; with `file` None the verifier's own when marked, else the family's
    that renders alike, else the verifier's own with markers put in. Proven on the probes. Where
    the verifier's own markers do not stand the proof (SmolLM3's are around the header as well),
    it counts as unmarked.

    Raises:
        InputError: no template, or none that stands the proof; with what differs.
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
            # the same white space is trimmed around any tag
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


def _families() -> list[str]:
    return sorted(path.stem for path in FAMILIES.glob("*.jinja"))


def _family(tokenizer: PreTrainedTokenizerBase, own: str) -> ChosenTemplate | None:
    """The shipped template that renders every probe as the verifier's own does, if there is one."""
    for name in _families():
        text = (FAMILIES / f"{name}.jinja").read_text(encoding="utf-8").removesuffix("\n")
        if _is_the_family(tokenizer, text, own):
            return ChosenTemplate(text, f"the family {name}")
    return None


def _newly_marked(
    tokenizer: PreTrainedTokenizerBase, own: str, stop_token_ids: list[int]
) -> ChosenTemplate:
    return _family(tokenizer, own) or _with_markers(tokenizer, own, stop_token_ids)


def _is_the_family(tokenizer: PreTrainedTokenizerBase, template: str, own: str) -> bool:
    rendered = 0
    for name, messages in PROBES.items():
        try:
            renders_alike(tokenizer, template, own, messages, name)
            rendered += 1
        except Refused:  # by both
            continue
        except InputError:
            return False
    return rendered > 0


# The verifier's template becomes a macro of the new one. What it renders for the conversation up
# to and including a reply, less what it renders as the prompt for that reply, is the reply, its
# end token, and what stands between turns. `<BODY>` begins a line, as it does in its own file.
_MARKED = """\
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


def _with_markers(
    tokenizer: PreTrainedTokenizerBase, own: str, stop_token_ids: list[int]
) -> ChosenTemplate:
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
    body = own.removesuffix("\n")  # Jinja does not output the newline that ends a template
    text = _MARKED.replace("<END>", repr(end)).replace("<BODY>", body)
    return ChosenTemplate(text, "the verifier's own, with markers put in")
