"""Check that the tokens at which serving stops end the replies of a chat template."""

from transformers import PreTrainedTokenizerBase

from eagle.errors import InputError
from eagle.template.template import Refused, render


def check_stop_tokens(
    tokenizer: PreTrainedTokenizerBase, template: str, stop_token_ids: list[int]
) -> None:
    """Check that the token which a template puts after a reply is one of those that end replies.

    Raises:
        InputError: it is not; the message names it and the key.
    """
    reply = "Hi there."
    messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": reply}]
    try:
        _, found, end = render(tokenizer, template, messages, False).rpartition(reply)
    except Refused:  # the proof says why
        return
    first = tokenizer(end.lstrip(), add_special_tokens=False)["input_ids"][:1] if found else []
    if not set(first) & tokenizer.added_tokens_decoder.keys() or set(first) & set(stop_token_ids):
        return
    named = [f"{n} ({tokenizer.convert_ids_to_tokens(n)!r})" for n in (*first, *stop_token_ids)]
    raise InputError(
        f"generation_config.json (config.json where that has none): eos_token_id is "
        f"{', '.join(named[1:])}, and the chat template ends a reply with {named[0]}, where "
        f"serving would not stop; add it, as eos_token_id = {[*stop_token_ids, *first]}"
    )
