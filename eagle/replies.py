"""Replies written by the verifier itself: the data the paper's Table 6 finds best."""

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from eagle.config import Regenerate
from eagle.tracking import Progress
from eagle.verifier import Verifier


def regenerate(
    conversations: list[dict],
    verifier: Verifier,
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    settings: Regenerate,
    progress: Progress,
) -> list[dict]:
    """Replace every assistant turn, first to last, each conditioned on the regenerated history.

    Args:
        progress: advanced by one for each reply.

    Returns:
        The conversations in the same order with the same ids. One whose reply comes out empty
        ends before that turn, and is left out if that is its first.
    """
    torch.manual_seed(settings.seed)
    answered = [{"id": row["id"], "messages": []} for row in conversations]
    waiting = [list(row["messages"]) for row in conversations]
    while True:
        asked = []
        for index, turns in enumerate(waiting):
            while turns and turns[0]["role"] != "assistant":
                answered[index]["messages"].append(turns.pop(0))
            if turns:
                asked.append(index)
        if not asked:
            break
        prompts = {
            index: tokenizer.apply_chat_template(
                answered[index]["messages"],
                chat_template=template,
                add_generation_prompt=True,
                return_dict=True,
            )["input_ids"]
            for index in asked
        }
        asked.sort(key=lambda index: len(prompts[index]))  # little padding in a batch
        for start in range(0, len(asked), settings.batch_size):
            batch = asked[start : start + settings.batch_size]
            replies = _generate(verifier, [prompts[index] for index in batch], settings)
            for index, reply in zip(batch, replies, strict=True):
                text = tokenizer.decode(reply, skip_special_tokens=True).strip()
                waiting[index].pop(0)
                if text:
                    answered[index]["messages"].append({"role": "assistant", "content": text})
                else:
                    answered[index]["messages"].pop()  # the question it did not answer
                    waiting[index] = []
                progress.advance()
    return [row for row in answered if any(m["role"] == "assistant" for m in row["messages"])]


def _generate(
    verifier: Verifier, prompts: list[list[int]], settings: Regenerate
) -> list[list[int]]:
    longest = max(len(prompt) for prompt in prompts)
    stop = verifier.stop_token_ids
    # padded on the left, so that every row's next token stands in the last column
    token_ids = torch.tensor([[stop[0]] * (longest - len(p)) + p for p in prompts])
    attention = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    device = verifier.head.device
    sampling = (
        {"do_sample": True, "temperature": settings.temperature, "top_k": 0}
        if settings.temperature
        else {"do_sample": False}
    )
    with torch.inference_mode():
        generated: Tensor = verifier.model.generate(
            token_ids.to(device),
            attention_mask=attention.to(device),
            max_new_tokens=settings.maximum_new_tokens,
            pad_token_id=stop[0],
            **sampling,
        )
    replies = generated[:, longest:].tolist()
    return [_until(reply, stop) for reply in replies]


def _until(reply: list[int], stop_token_ids: list[int]) -> list[int]:
    """The reply before its first stop token."""
    for position, token in enumerate(reply):
        if token in stop_token_ids:
            return reply[:position]
    return reply
