"""The chat template: text that marks what the assistant says, rendered within bounds."""

import hashlib
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jinja2
import numpy as np
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from eagle.errors import InputError

MARKER = "{% generation %}"

# A template is a program that came with a model. One rendering takes about a millisecond and adds
# a few thousand characters; what goes beyond these bounds is broken or hostile.
RENDER_SECONDS = 10
RENDER_BYTES = 2**30
ADDED_CHARACTERS = 10**6


class Refused(InputError):
    """The template itself raised an error: it does not take such a conversation."""


@dataclass
class Encoded:
    """Token ids of one conversation and, token by token, whether the assistant said it."""

    token_ids: list[int]
    loss_mask: list[int]
    cut: int
    """Tokens beyond the maximum length, left out."""


class Rendered(NamedTuple):
    """The text of a conversation."""

    text: str
    replies: list[tuple[int, int]]
    """What the assistant says: first character and the one behind it."""


def load_template(file: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of a template file with generation markers, after a first bounded rendering.

    Raises:
        InputError: no such file, not Jinja, without generation markers, or beyond the bounds.
    """
    path = Path(file)
    if not path.is_file():
        raise InputError(f"template.file = {file}: there is no such file")
    # as transformers reads a .jinja file: the newline that ends the file is not output
    template = path.read_text(encoding="utf-8").removesuffix("\n")
    if not is_marked(template, file):
        raise InputError(
            f"{file}: no {MARKER} … {{% endgeneration %}} around the assistant's reply, so the "
            "loss mask would be all zero; set template.file to a marked template "
            "(resources/chat_templates has examples), or to null to have one found"
        )
    render(tokenizer, template, [{"role": "user", "content": "Hello"}], True)
    return template


def own_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The chat template that the verifier ships, which is what serving renders."""
    own = tokenizer.chat_template
    return own.get("default") if isinstance(own, dict) else own


def own_template_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of the chat template that the verifier ships. Data made for it was proven to render
    like it (eagle/template/proof.py), so another one means other data."""
    return hashlib.sha256((own_template(tokenizer) or "").encode()).hexdigest()


def is_marked(template: str, where: str) -> bool:
    """Whether the template has generation markers, with white-space control or without.

    Raises:
        InputError: not Jinja.
    """
    try:
        tokens = list(jinja2.Environment().lex(template))
    except jinja2.TemplateSyntaxError as error:
        raise InputError(f"{where}, line {error.lineno}: not valid Jinja: {error}") from None
    statements, opened = set(), False
    for _line, kind, text in tokens:
        if kind == "block_begin":
            opened = True
        elif opened and kind == "name":
            statements.add(text)
            opened = False
    return {"generation", "endgeneration"} <= statements


def render(
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    messages: list[dict],
    add_generation_prompt: bool,
) -> str:
    """The text of a conversation, rendered in transformers' sandbox.

    Raises:
        Refused: the template raises an error for these messages.
        InputError: it takes too long, too much memory, or writes too much.
    """
    try:
        with _time_bound(), _memory_bound():
            text = tokenizer.apply_chat_template(
                messages,
                chat_template=template,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
            )
    except InputError:
        raise
    except MemoryError:
        raise InputError(
            f"the chat template takes more than {RENDER_BYTES:,} bytes to render one conversation"
        ) from None
    except Exception as error:  # a template is a program: whatever it raises is its refusal
        raise _refusal(error) from None
    if len(text) > sum(len(message["content"]) for message in messages) + ADDED_CHARACTERS:
        raise InputError(
            f"the chat template renders {len(text):,} characters, more than {ADDED_CHARACTERS:,} "
            "beyond what the conversation itself holds"
        )
    return text


def encode(
    tokenizer: PreTrainedTokenizerBase, template: str, messages: list[dict], maximum_length: int
) -> Encoded:
    """Token ids and loss mask of a conversation, cut at `maximum_length` tokens.

    Raises:
        InputError: the template cannot render these messages, or not in time.
    """
    try:
        with _time_bound():
            encoded = tokenizer.apply_chat_template(
                messages,
                chat_template=template,
                return_dict=True,
                return_assistant_tokens_mask=True,
            )
    except InputError:
        raise
    except Exception as error:  # as in `render`
        raise _refusal(error) from None
    token_ids, mask = encoded["input_ids"], encoded["assistant_masks"]
    return Encoded(
        token_ids[:maximum_length], mask[:maximum_length], max(0, len(token_ids) - maximum_length)
    )


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase, template: str, messages: list[dict]
) -> list[int]:
    """Token ids of what serving sends to have these messages answered.

    Raises:
        InputError: the template cannot render them, or not in time.
    """
    text = render(tokenizer, template, messages, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def render_many(
    tokenizer: PreTrainedTokenizerBase, template: str, conversations: list[list[dict]]
) -> list[Rendered]:
    """The texts of many conversations, and what in them the assistant says.

    Raises:
        InputError: the template cannot render one of them, or not in time.
    """
    try:
        with _time_bound():
            texts, replies = render_jinja_template(
                conversations,
                chat_template=template,
                return_assistant_tokens_mask=True,
                **tokenizer.special_tokens_map,
            )
    except InputError:
        raise
    except Exception as error:  # as in `render`
        raise _refusal(error) from None
    return [Rendered(*one) for one in zip(texts, replies, strict=True)]


def encode_many(
    tokenizer: PreTrainedTokenizerBase, rendered: list[Rendered]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """What `encode` says of each conversation, whole: token ids int32 [N] and loss mask uint8 [N].

    Several threads may call it at a time: nearly all of its time it does not hold Python's lock.
    """
    encoded = []
    texts = [one.text for one in rendered]
    for encoding, one in zip(
        tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False),
        rendered,
        strict=True,
    ):
        token_ids = np.array(encoding.ids, dtype=np.int32)
        mask = np.zeros(len(token_ids), dtype=np.uint8)
        for start, end in one.replies:
            first, last = encoding.char_to_token(start), encoding.char_to_token(end - 1)
            if first is None:
                break
            mask[first : last + 1 if last else None] = 1
        encoded.append((token_ids, mask))
    return encoded


def _refusal(error: Exception) -> Refused:
    name = "" if isinstance(error, jinja2.TemplateError) else f"{type(error).__name__}: "
    return Refused(f"the chat template cannot render a conversation: {name}{error}")


@contextmanager
def _time_bound() -> Iterator[None]:
    """Break off after RENDER_SECONDS. On the main thread, where the stages work."""

    def overdue(*_signal) -> None:
        raise InputError(
            f"the chat template was still rendering one conversation after {RENDER_SECONDS} s; "
            "it loops for ever, or nearly"
        )

    handler = signal.signal(signal.SIGALRM, overdue)
    timer = signal.setitimer(signal.ITIMER_REAL, RENDER_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)


@contextmanager
def _memory_bound() -> Iterator[None]:
    """Let the process grow by at most RENDER_BYTES, where the system says how large it is."""
    statm = Path("/proc/self/statm")
    if not statm.is_file():
        yield
        return
    pages = int(statm.read_text().split()[0])
    bounds = resource.getrlimit(resource.RLIMIT_AS)
    allowed = pages * resource.getpagesize() + RENDER_BYTES
    if bounds[0] != resource.RLIM_INFINITY:
        allowed = min(allowed, bounds[0])
    resource.setrlimit(resource.RLIMIT_AS, (allowed, bounds[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, bounds)
