"""Prove that a template renders what serving renders, and that it marks the replies exactly."""

import re
from collections import Counter
from itertools import pairwise
from unicodedata import normalize

from transformers import PreTrainedTokenizerBase

from eagle.errors import InputError
from eagle.template.template import (
    MARKER,
    ChosenTemplate,
    Encoded,
    Refused,
    encode,
    own_template,
    render,
    swallowing_tokens,
)

# The thought of a reasoning model, or the end of a thought that the generation prompt has opened.
THINKING = re.compile(r"<think>.*?</think>|\A\s*</think>", re.DOTALL)


def _turns(*contents: str, system: str | None = None) -> list[dict]:
    roles = ("user", "assistant")
    turns = [{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)]
    return turns if system is None else [{"role": "system", "content": system}, *turns]


# Short conversations, each with a property that breaks templates in practice.
PROBES: dict[str, list[dict]] = {
    "plain": _turns("Hello", "Hi there."),
    "system": _turns("One?", "1", system="Answer briefly."),
    "empty system": _turns("One?", "1", system=""),
    "several turns": _turns("One?", "1", "Two?", "2", "Three?", "3"),
    "system and several turns": _turns("One?", "1", "Two?", "2", system="Answer briefly."),
    "unicode": _turns("Grüße 🙂 你好", "¡Ole\u0301! 🙂", "e\u0301 \u200d ﷺ", "你好，世界"),
    "code": _turns("Show code", "```python\nprint('{{ x }}', {% raw %})\n```"),
    "white space at the edges": _turns(" edges\n", "\n a  b\n\nc \n", "\tand\t", "  so  "),
    "what looks like special tokens": _turns(
        "What is <|endoftext|> or </s>?",
        "[INST] and <|im_end|> are <s> markers </s> here.",
        "And <|eot_id|><|end|><end_of_turn>?",
        "Too.",
    ),
    "thoughts": _turns("Two?", "<think>\nOne and one.\n</think>\n\n2", "So?", "2 it is."),
}


class Rewritten(InputError):
    """The verifier's own template renders an earlier turn differently when more turns follow."""


def validate(
    tokenizer: PreTrainedTokenizerBase,
    chosen: ChosenTemplate,
    conversations: list[dict],
    stop_token_ids: list[int],
    maximum_length: int,
) -> dict:
    """Prove on the probes and on conversations that a template and its mask are right.

    (a) If the verifier has its own template, both render the same text, with and without the
    generation prompt, and both refuse the same conversations. (b) The mask covers each reply with
    its end token and nothing else, and it is transformers' own but for white space that a token of
    the prompt takes in. (c) The tokens before a reply are the tokens that serving sends as its
    prompt. (d) The end token of a reply is masked even if its id is also the id of padding.

    Args:
        conversations: as `eagle.sharegpt.conversations` reads them.
        maximum_length: tokens at which a conversation is cut; only counted here.

    Returns:
        The report, for report.json.

    Raises:
        InputError: one of these is not true; the message names the conversation and what differs.
    """
    probed = prove_on_probes(tokenizer, chosen, stop_token_ids)
    counts: Counter[str] = Counter()
    for row in conversations:
        where = f"conversation {row['id']}"
        counts += _prove(tokenizer, chosen, row["messages"], stop_token_ids, where)
        encoded = encode(tokenizer, chosen.text, row["messages"], maximum_length)
        counts["cut_conversations"] += encoded.cut_tokens > 0
    return {
        "template": chosen.origin,
        "renders_like_the_verifiers_own": own_template(tokenizer) is not None,
        "probes": len(PROBES),
        "probes_refused_by_both": probed["refused"],
        "probes_the_verifier_rewrites": probed["rewritten"],
        "conversations": len(conversations),
        "cut_conversations": counts["cut_conversations"],
        "replies": counts["replies"],
        "replies_whose_white_space_joins_the_prompt": counts["seams"],
        "tokens": counts["tokens"],
        "assistant_tokens": counts["masked"],
        "mask_share": round(counts["masked"] / counts["tokens"], 4),
        "eos_is_pad": tokenizer.pad_token_id == tokenizer.eos_token_id,
    }


def spans(tokenizer: PreTrainedTokenizerBase, encoded: Encoded) -> list[dict]:
    """The text of a conversation, divided where the mask changes: a list of {"text", "masked"}."""
    return [
        {"text": tokenizer.decode(encoded.token_ids[start:end]), "masked": bool(value)}
        for value, start, end in _runs(encoded.loss_mask)
    ]


def prove_on_probes(
    tokenizer: PreTrainedTokenizerBase, chosen: ChosenTemplate, stop_token_ids: list[int]
) -> Counter[str]:
    """Prove (a) to (d) of `validate` on the probes.

    Returns:
        Counts, among them `refused`: the probes that both templates refuse, and `rewritten`: the
        probes whose earlier turns the verifier's own template rewrites.

    Raises:
        InputError: one of them is not true for a probe, or all probes are refused.
    """
    counts: Counter[str] = Counter()
    for name, messages in PROBES.items():
        where = f"template {chosen.origin}, probe '{name}'"
        try:
            counts += _prove(tokenizer, chosen, messages, stop_token_ids, where)
        except Refused:
            counts["refused"] += 1
        except Rewritten:
            counts["rewritten"] += 1
    if counts["refused"] == len(PROBES):
        render(tokenizer, chosen.text, PROBES["plain"], False)  # raises with the template's message
    return counts


def _prove(
    tokenizer: PreTrainedTokenizerBase,
    chosen: ChosenTemplate,
    messages: list[dict],
    stop_token_ids: list[int],
    where: str,
) -> Counter[str]:
    """Prove (a) to (d) of `validate` for one conversation; returns its counts."""
    text = renders_alike(tokenizer, chosen.text, chosen.served, messages, where)
    encoded = encode(tokenizer, chosen.text, messages, maximum_length=10**9)
    numbers = [number for number, m in enumerate(messages) if m["role"] == "assistant"]
    prompts = [render(tokenizer, chosen.served, messages[:number], True) for number in numbers]
    for prompt in prompts:
        _check_prompt(text, prompt, where)
    runs = [(start, end) for value, start, end in _runs(encoded.loss_mask) if value]
    if len(runs) != len(numbers):
        raise InputError(
            f"{where}: the mask has {len(runs)} runs for {len(numbers)} assistant replies; "
            f"put {MARKER} … around the reply and its end token, and around nothing else"
        )
    greedy = swallowing_tokens(tokenizer)
    seams = 0
    for number, prompt, (start, end) in zip(numbers, prompts, runs, strict=True):
        masked, reply = encoded.token_ids[start:end], messages[number]["content"]
        _check_reply(tokenizer, masked, reply, stop_token_ids, where)
        # white space that the verifier itself would write, and that is in the prompt's last token
        swallowed = encoded.token_ids[start - 1] in greedy and text[len(prompt)].isspace()
        seams += _is_seam(tokenizer, encoded, start, prompt, where) or swallowed
    _check_mask(tokenizer, chosen.text, messages, encoded, where)
    return Counter(
        replies=len(numbers),
        seams=seams,
        tokens=len(encoded.token_ids),
        masked=sum(encoded.loss_mask),
    )


def renders_alike(
    tokenizer: PreTrainedTokenizerBase, template: str, own: str, messages: list[dict], where: str
) -> str:
    """Prove that two templates render a conversation, and the prompt for its last reply, alike.

    Args:
        own: the verifier's own template.
        where: the conversation, with which an error's message begins.

    Returns:
        The text of the conversation.

    Raises:
        Refused: both templates refuse the conversation.
        InputError: only one of them refuses it, or the texts differ.
    """
    for shown, prompt_only in ((messages[:-1], True), (messages, False)):
        try:
            theirs = render(tokenizer, own, shown, prompt_only)
        except Refused as refused:
            try:
                ours = render(tokenizer, template, shown, prompt_only)
            except Refused:
                raise Refused(f"{where}: {refused}") from None
            raise InputError(
                f"{where}: the verifier's own template refuses this conversation ({refused}), the "
                f"marked one renders {ours[:80]!r}: correct template.file"
            ) from None
        try:
            ours = render(tokenizer, template, shown, prompt_only)
        except Refused as refused:
            raise InputError(
                f"{where}: {refused}; the verifier's own template renders it: correct template.file"
            ) from None
        if ours != theirs:
            at = _differ_at(ours, theirs)
            raise InputError(
                f"{where}: the marked template renders {ours[at : at + 40]!r} at character {at} "
                f"where the verifier's own renders {theirs[at : at + 40]!r}; serving would send "
                "other tokens than training saw: correct template.file"
            )
    return theirs


def _check_prompt(text: str, prompt: str, where: str) -> None:
    """Check that a conversation begins with the prompt of an earlier reply.

    Both are rendered by the verifier's own template. A thought at the end of the prompt may be
    missing in the conversation.
    """
    at = _differ_at(text, prompt)
    rest = prompt[at:]
    if rest and not THINKING.match(rest.lstrip()):
        raise Rewritten(
            f"{where}: the verifier's own template renders {text[at : at + 40]!r} at character "
            f"{at} of the conversation where it sent {rest[:40]!r} as the prompt of an earlier "
            "reply: it rewrites earlier turns, so training would see prompts that serving never "
            "sends; leave such turns out (system turns: sharegpt.system_turns)"
        )


def _check_reply(
    tokenizer: PreTrainedTokenizerBase,
    masked: list[int],
    reply: str,
    stop_token_ids: list[int],
    where: str,
) -> None:
    """Check that the masked tokens are the reply and its end token."""
    if masked[-1] not in stop_token_ids:
        raise InputError(
            f"{where}: the mask of the reply {reply[:40]!r} ends with "
            f"{tokenizer.decode(masked[-1:])!r}, and its end token is outside; the draft would "
            f"never learn where replies end: put {MARKER} … around both"
        )
    text = tokenizer.decode(masked[:-1], clean_up_tokenization_spaces=False)
    # without thoughts: a template may add an empty one to the last reply and drop earlier ones;
    # in NFC: a tokenizer (Qwen's) may compose characters
    found, expected = (
        normalize("NFC", _without_swallowed(tokenizer, THINKING.sub("", t))).strip()
        for t in (text, reply)
    )
    if found != expected:
        raise InputError(
            f"{where}: the mask covers {text[:60]!r}, expected the reply {reply[:60]!r}"
        )


def _without_swallowed(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """The text without the white space that special tokens named in it take in (Phi-3's </s>)."""
    for token in tokenizer.added_tokens_decoder.values():
        if (token.lstrip or token.rstrip) and token.content in text:
            before, after = (r"\s*" if takes else "" for takes in (token.lstrip, token.rstrip))
            text = token.content.join(re.split(before + re.escape(token.content) + after, text))
    return text


def _is_seam(
    tokenizer: PreTrainedTokenizerBase, encoded: Encoded, start: int, prompt: str, where: str
) -> bool:
    """Whether white space between prompt and reply is tokenized differently than in serving.

    Args:
        start: the first masked token of the reply.

    Raises:
        InputError: more than white space differs: the mask begins too early or too late.
    """
    trained = encoded.token_ids[:start]
    served = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    same = _differ_at(trained, served)
    only_trained = tokenizer.decode(trained[same:])
    only_served = tokenizer.decode(served[same:])
    # the mask covers a token of the prompt; white space that is merged with it is another token
    covered = same < len(served) and encoded.token_ids[start] == served[same]
    if not covered and THINKING.match(only_served.strip()):
        only_served = ""  # serving closes the thought before the reply begins
    if covered or only_trained.strip() or only_served.strip():
        raise InputError(
            f"{where}: serving would send {only_served[-60:]!r} before a reply where training has "
            f"{only_trained[-60:]!r} outside the mask: put {MARKER} … where the generation prompt "
            "ends"
        )
    return bool(only_trained or only_served)


def _check_mask(
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    messages: list[dict],
    encoded: Encoded,
    where: str,
) -> None:
    """Check tokens and mask against those of transformers, one conversation at a time."""
    theirs = tokenizer.apply_chat_template(
        messages, chat_template=template, return_dict=True, return_assistant_tokens_mask=True
    )
    mask, greedy = theirs["assistant_masks"], swallowing_tokens(tokenizer)
    for value, start, _end in _runs(mask):
        if value and encoded.token_ids[start] in greedy and not encoded.loss_mask[start]:
            mask[start] = 0  # a token of the prompt that takes in white space of the reply
    if (theirs["input_ids"], mask) != (encoded.token_ids, encoded.loss_mask):
        raise InputError(
            f"{where}: the tokenised conversation is not what transformers' apply_chat_template "
            "gives for it"
        )


def _differ_at(a, b) -> int:
    """The first position at which two sequences differ; if none, the length of the shorter."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((at for at, (x, y) in pairs if x != y), min(len(a), len(b)))


def _runs(mask: list[int]) -> list[tuple[int, int, int]]:
    """Runs of equal values in a mask: (value, first token, token after the last)."""
    bounds = [0, *(i for i in range(1, len(mask)) if mask[i] != mask[i - 1]), len(mask)]
    return [(mask[start], start, end) for start, end in pairwise(bounds) if end]
