"""The chat template that marks what the assistant says, and the proof that it does."""

from dataclasses import dataclass
from pathlib import Path

import jinja2
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from eagle.errors import InputError

MARKER = "{% generation %}"

# What breaks templates in practice: system turns, several turns, edges of white space, unicode,
# code fences, text that looks like special tokens.
PROBES: list[list[dict]] = [
    [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi there."}],
    [
        {"role": "system", "content": "Answer briefly."},
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "Two?"},
        {"role": "assistant", "content": "2"},
    ],
    [{"role": "user", "content": "Grüße 🙂 你好"}, {"role": "assistant", "content": "¡Olé! 🙂"}],
    [
        {"role": "user", "content": "Show code"},
        {"role": "assistant", "content": "```python\nprint('{{ x }}')\n```"},
    ],
    [{"role": "user", "content": " edges\n"}, {"role": "assistant", "content": "a  b\n\nc"}],
    [
        {"role": "user", "content": "What is <|endoftext|> or </s>?"},
        {"role": "assistant", "content": "Markers."},
    ],
]


@dataclass
class Encoded:
    """Token ids of one conversation and, token by token, whether the assistant said it."""

    token_ids: list[int]
    loss_mask: list[int]
    cut: int
    """Tokens beyond the maximum length, left out."""


def load_template(file: str | None, tokenizer: PreTrainedTokenizerBase) -> str:
    """The template text: the file's, or the tokenizer's own when `file` is None.

    Raises:
        InputError: no such file, no template at all, or one without generation markers.
    """
    if file is None:
        template, where = tokenizer.chat_template, "the verifier's own chat template"
    else:
        path, where = Path(file), file
        if not path.is_file():
            raise InputError(f"template.file = {file}: there is no such file")
        # as transformers reads a .jinja file: the newline that ends the file is not output
        template = path.read_text(encoding="utf-8").removesuffix("\n")
    # the markers may be written with white-space control: {%- generation -%}
    if template is None or not {"generation", "endgeneration"} <= _statements(template, where):
        raise InputError(
            f"{where}: no {MARKER} … {{% endgeneration %}} around the assistant's reply, so the "
            "loss mask would be all zero; set template.file to a marked template "
            "(resources/chat_templates has examples)"
        )
    return template


def encode(
    tokenizer: PreTrainedTokenizerBase, template: str, messages: list[dict], maximum_length: int
) -> Encoded:
    """Token ids and loss mask of a conversation, cut at `maximum_length` tokens.

    Raises:
        InputError: the template cannot render these messages.
    """
    try:
        encoded = tokenizer.apply_chat_template(
            messages, chat_template=template, return_dict=True, return_assistant_tokens_mask=True
        )
    except jinja2.TemplateError as error:
        raise InputError(f"the chat template cannot render a conversation: {error}") from None
    token_ids, mask = encoded["input_ids"], encoded["assistant_masks"]
    return Encoded(
        token_ids[:maximum_length], mask[:maximum_length], max(0, len(token_ids) - maximum_length)
    )


def encode_many(
    tokenizer: PreTrainedTokenizerBase, template: str, conversations: list[list[dict]]
) -> list[Encoded]:
    """`encode` of many conversations, each whole: tokenised side by side, their masks filled in by
    spans and not by tokens.

    Raises:
        InputError: the template cannot render one of them.
    """
    try:
        texts, replies = render_jinja_template(
            conversations,
            chat_template=template,
            return_assistant_tokens_mask=True,
            **tokenizer.special_tokens_map,
        )
    except jinja2.TemplateError as error:
        raise InputError(f"the chat template cannot render a conversation: {error}") from None
    tokenized = tokenizer(texts, add_special_tokens=False, return_attention_mask=False)
    encoded = []
    for token_ids, encoding, spans_of_replies in zip(
        tokenized["input_ids"], tokenized.encodings, replies, strict=True
    ):
        mask = [0] * len(token_ids)
        for start, end in spans_of_replies:  # characters
            first, last = encoding.char_to_token(start), encoding.char_to_token(end - 1)
            if first is None:
                break
            stop = last + 1 if last else len(token_ids)
            mask[first:stop] = [1] * (stop - first)
        encoded.append(Encoded(token_ids, mask, 0))
    return encoded


def validate(
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    conversations: list[dict],
    stop_token_ids: list[int],
) -> dict:
    """Prove on probes and on real conversations that template and mask are right.

    (a) where the verifier has a template of its own, both render the same text, with and without
    the generation prompt; (b) the mask covers each assistant reply with its stop token and
    nothing else.

    Returns:
        A report: counts, and the first conversation coloured for show.

    Raises:
        InputError: the first conversation for which (a) or (b) does not hold, with what differs.
    """
    own = tokenizer.chat_template
    masked = total = 0
    for number, messages in enumerate(PROBES + [row["messages"] for row in conversations]):
        where = f"probe {number}" if number < len(PROBES) else (
            f"conversation {conversations[number - len(PROBES)]['id']}"
        )  # fmt: skip
        if own is not None:
            _same_rendering(tokenizer, template, own, messages, where)
        encoded = encode(tokenizer, template, messages, maximum_length=10**9)
        _mask_is_the_replies(tokenizer, encoded, messages, stop_token_ids, where)
        masked += sum(encoded.loss_mask)
        total += len(encoded.token_ids)
    return {
        "conversations": len(conversations),
        "probes": len(PROBES),
        "renders_like_the_verifiers_own": own is not None,
        "tokens": total,
        "assistant_tokens": masked,
        "mask_share": round(masked / total, 4),
        "eos_is_pad": tokenizer.pad_token_id == tokenizer.eos_token_id,
    }


def spans(tokenizer: PreTrainedTokenizerBase, encoded: Encoded) -> list[dict]:
    """The text of a conversation in runs of equal mask, for showing: {"text", "masked"}."""
    return [{"text": tokenizer.decode(ids), "masked": bool(value)} for value, ids in _runs(encoded)]


def _statements(template: str, where: str) -> set[str]:
    """Names of the template's {% statements %}."""
    try:
        tokens = list(jinja2.Environment().lex(template))
    except jinja2.TemplateSyntaxError as error:
        raise InputError(f"{where}, line {error.lineno}: not valid Jinja: {error}") from None
    names, opened = set(), False
    for _line, kind, text in tokens:
        if kind == "block_begin":
            opened = True
        elif opened and kind == "name":
            names.add(text)
            opened = False
    return names


def _same_rendering(
    tokenizer: PreTrainedTokenizerBase, template: str, own: str, messages: list[dict], where: str
) -> None:
    for prompt_only in (False, True):
        shown = messages[:-1] if prompt_only else messages
        ours, theirs = (
            tokenizer.apply_chat_template(
                shown, chat_template=text, tokenize=False, add_generation_prompt=prompt_only
            )
            for text in (template, own)
        )
        if ours != theirs:
            at = next(
                (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b),
                min(len(ours), len(theirs)),
            )
            raise InputError(
                f"{where}: the marked template renders {ours[at : at + 40]!r} at character {at} "
                f"where the verifier's own renders {theirs[at : at + 40]!r}; serving would send "
                "other tokens than training saw: correct template.file"
            )


def _mask_is_the_replies(
    tokenizer: PreTrainedTokenizerBase,
    encoded: Encoded,
    messages: list[dict],
    stop_token_ids: list[int],
    where: str,
) -> None:
    replies = [message["content"] for message in messages if message["role"] == "assistant"]
    marked = [ids for value, ids in _runs(encoded) if value]
    if len(marked) != len(replies):
        raise InputError(
            f"{where}: the mask has {len(marked)} runs for {len(replies)} assistant replies; "
            f"put {MARKER} … around the reply and its end token, and around nothing else"
        )
    for reply, ids in zip(replies, marked, strict=True):
        stops = [position for position, token in enumerate(ids) if token in stop_token_ids]
        if not stops:
            raise InputError(
                f"{where}: the end token is outside the mask of the reply {reply[:40]!r}; "
                "the draft would never learn where replies end"
            )
        text = tokenizer.decode(ids[: stops[-1]])
        if text.strip() != reply.strip():
            raise InputError(
                f"{where}: the mask covers {text[:60]!r}, expected the reply {reply[:60]!r}"
            )


def _runs(encoded: Encoded) -> list[tuple[int, list[int]]]:
    """Neighbouring tokens of equal mask: (mask value, token ids)."""
    runs: list[tuple[int, list[int]]] = []
    for token, value in zip(encoded.token_ids, encoded.loss_mask, strict=True):
        if not runs or runs[-1][0] != value:
            runs.append((value, []))
        runs[-1][1].append(token)
    return runs
