"""Load and render a chat template within bounds of time, memory and length; tokenize its text."""

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

# A template is a program that comes with a model. One rendering takes about a millisecond and adds
# a few thousand characters; a template that exceeds these bounds is broken or hostile.
RENDER_SECONDS = 10
RENDER_BYTES = 2**30
ADDED_CHARACTERS = 10**6


class Refused(InputError):
    """The template raised an error: it does not accept this conversation."""


@dataclass(frozen=True)
class ChosenTemplate:
    """A template with generation markers, and where it comes from."""

    text: str
    origin: str
    served: str
    """The template that serving renders: the verifier's own, or `text` if it has none."""


@dataclass
class Encoded:
    """The tokens of one conversation."""

    token_ids: list[int]
    loss_mask: list[int]
    """For each token, 1 if it belongs to a reply of the assistant, else 0."""
    cut_tokens: int
    """Number of tokens beyond the maximum length, which are left out."""


class Rendered(NamedTuple):
    """The text of one conversation."""

    text: str
    replies: list[tuple[int, int]]
    """For each reply of the assistant, its first character and the character after its last."""
    unfinished: frozenset[int] = frozenset()
    """The replies that were cut at a limit of length, by their number from 0."""


def load_template(file: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """Read a file of a marked template and render it once within the bounds.

    Raises:
        InputError: as in `marked_template`; or a bound is exceeded.
    """
    template = marked_template(file)
    render(tokenizer, template, [{"role": "user", "content": "Hello"}], True)
    return template


def marked_template(file: str) -> str:
    """Read a file of a template with generation markers.

    Raises:
        InputError: no such file, not Jinja, or no generation markers.
    """
    path = Path(file)
    if not path.is_file():
        raise InputError(f"template.file = {file}: there is no such file")
    template = read_template(path)
    if not is_marked(template, file):
        raise InputError(
            f"{file}: no {MARKER} … {{% endgeneration %}} around the assistant's reply, so the "
            "loss mask would be all zero; set template.file to a marked template "
            "(resources/chat_templates has examples), or to null to have one found"
        )
    return template


def read_template(path: Path) -> str:
    """The text of a template's file, without the newline at its end, as transformers reads it."""
    return path.read_text(encoding="utf-8").removesuffix("\n")


def own_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The chat template that comes with the verifier, and that serving renders; None without."""
    own = tokenizer.chat_template
    return own.get("default") if isinstance(own, dict) else own


def is_marked(template: str, where: str) -> bool:
    """Whether a template has generation markers, with white-space control or without.

    Args:
        where: the template's name, with which an error's message begins.

    Raises:
        InputError: the template is not valid Jinja.
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
    """Render a conversation to text in transformers' sandbox.

    Raises:
        Refused: the template raises an error for these messages.
        InputError: rendering exceeds a bound of time, memory or length.
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
    except Exception as error:  # a template is a program that can raise any error
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
    """Tokenize a conversation and cut it at `maximum_length` tokens.

    Raises:
        InputError: the template cannot render these messages, or not in time.
    """
    ((token_ids, mask),) = encode_many(tokenizer, render_many(tokenizer, template, [messages]))
    return Encoded(
        token_ids[:maximum_length].tolist(),
        mask[:maximum_length].tolist(),
        max(0, len(token_ids) - maximum_length),
    )


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase, template: str, messages: list[dict]
) -> list[int]:
    """Tokenize the prompt that serving sends for a reply to these messages.

    Raises:
        InputError: the template cannot render the messages, or not in time.
    """
    text = render(tokenizer, template, messages, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def render_many(
    tokenizer: PreTrainedTokenizerBase, template: str, conversations: list[list[dict]]
) -> list[Rendered]:
    """Render many conversations, with the places of the assistant's replies.

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
    """Tokenize many conversations.

    The mask is that of transformers' `apply_chat_template`, but a token of the prompt that takes in
    the white space after it is the prompt's, even if that white space begins the reply; and of a
    reply that was cut at a limit of length, the stop token is not the assistant's, who did not
    write it. Several threads can call this at the same time: it mostly runs without Python's lock.

    Returns:
        For each conversation of N tokens, token ids int32 [N] and loss mask uint8 [N].
    """
    encoded = []
    texts = [one.text for one in rendered]
    greedy = swallowing_tokens(tokenizer)
    for encoding, one in zip(
        tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False),
        rendered,
        strict=True,
    ):
        token_ids = np.array(encoding.ids, dtype=np.int32)
        mask = np.zeros(len(token_ids), dtype=np.uint8)
        for number, (start, end) in enumerate(one.replies):
            first, last = encoding.char_to_token(start), encoding.char_to_token(end - 1)
            if first is None:
                break
            if number in one.unfinished:
                written = one.text[start : encoding.offsets[last][0]].rstrip()
                if not written:
                    continue
                last = encoding.char_to_token(start + len(written) - 1)
            if encoding.offsets[first][0] < start and token_ids[first] in greedy:
                first += 1  # the prompt's last token, with white space of the reply
            mask[first : last + 1 if last else None] = 1
        encoded.append((token_ids, mask))
    return encoded


def swallowing_tokens(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The tokens that take in the white space after them (Phi-3's markers of the roles)."""
    return {number for number, token in tokenizer.added_tokens_decoder.items() if token.rstrip}


def _refusal(error: Exception) -> Refused:
    name = "" if isinstance(error, jinja2.TemplateError) else f"{type(error).__name__}: "
    return Refused(f"the chat template cannot render a conversation: {name}{error}")


@contextmanager
def _time_bound() -> Iterator[None]:
    """Stop the block after RENDER_SECONDS. Works only on the main thread, because of the signal."""

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
    """Let the process grow by at most RENDER_BYTES; no bound where /proc does not tell its size."""
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
