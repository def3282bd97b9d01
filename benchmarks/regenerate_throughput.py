"""Regenerating replies: one-by-one `generate` against the transformers backend, in one run.

    python -m benchmarks.regenerate_throughput    # after `make repro`: its verifier and its data

Both answer the first turns of the same conversations, greedily, in the same precision, with as
many new tokens at most, and keep a KV cache. A rate is the tokens of the replies over the wall
time, prompts included. The two take turns, part by part, so that a busy machine slows both.
Results go to benchmarks/results/ with hardware, versions and commit.
"""

import argparse
import time
from pathlib import Path

import torch

from eagle.config import Regenerate, load_params
from eagle.files import sha256_of_file, write_json
from eagle.provenance import provenance
from eagle.replies.replies import Prompt, TransformersBackend
from eagle.sharegpt.conversations import read_conversations
from eagle.template.template import encode_prompt, load_template
from eagle.tokens.tokenizer import load_tokenizer
from eagle.verifier.verifier import Verifier

RESULT = Path("benchmarks/results/regenerate_throughput.json")
VERIFIER = Path("resources/verifier")
CONVERSATIONS = Path("resources/sharegpt/train.jsonl")
TEMPLATE = "resources/chat_templates/smollm2.jinja"


def one_by_one(verifier: Verifier, prompts: list[Prompt]) -> list[int]:
    """Tokens of each reply: the plain way, `generate` for one prompt after another."""
    device, written = verifier.head.device, []
    for prompt in prompts:
        token_ids = torch.tensor([prompt.token_ids], device=device)
        with torch.inference_mode():
            generated = verifier.model.generate(
                token_ids,
                attention_mask=torch.ones_like(token_ids),
                max_new_tokens=prompt.maximum_new_tokens,
                do_sample=False,
            )
        written.append(generated.shape[1] - token_ids.shape[1])
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--conversations", type=int, default=16)
    parser.add_argument("--new-tokens", type=int, default=128)
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    changes = {"temperature": 0.0, "maximum_new_tokens": arguments.new_tokens}
    settings = load_params().regenerate.model_copy(update=changes)
    tokenizer = load_tokenizer(VERIFIER)
    template = load_template(TEMPLATE, tokenizer)
    verifier = Verifier.load(VERIFIER, getattr(torch, settings.dtype), device)
    backend = TransformersBackend(verifier, tokenizer, settings)
    prompts = first_prompts(tokenizer, template, settings, arguments.conversations)
    one_by_one(verifier, prompts[:1])  # warm up both
    list(backend.replies(prompts[:2], ()))
    plain, ours = {"tokens": 0, "seconds": 0.0}, {"tokens": 0, "seconds": 0.0}
    for start in range(0, len(prompts), settings.batch_size):
        part = prompts[start : start + settings.batch_size]
        for totals, job in (
            (plain, lambda part=part: one_by_one(verifier, part)),
            (ours, lambda part=part: [r.tokens for _, r in backend.replies(part, ())]),
        ):
            started = time.monotonic()
            totals["tokens"] += sum(job())
            totals["seconds"] += time.monotonic() - started
            print(f"{totals['tokens']} tokens in {totals['seconds']:.1f} s", flush=True)
    for totals in (plain, ours):
        totals["tokens_per_second"] = round(totals["tokens"] / totals["seconds"], 1)
        totals["seconds"] = round(totals["seconds"], 1)
    ratio = round(ours["tokens_per_second"] / plain["tokens_per_second"], 2)
    settings_used = settings.model_dump() | {
        "conversations": len(prompts),
        "prompt_tokens": sum(len(prompt.token_ids) for prompt in prompts),
    }
    inputs = {"conversations": sha256_of_file(CONVERSATIONS)}
    content = {
        "one_by_one_generate": plain,
        "transformers_backend": ours,
        "times_faster": ratio,
        "provenance": provenance(settings_used, inputs, plain["seconds"] + ours["seconds"]),
    }
    write_json(RESULT, content)
    print(f"one by one {plain['tokens_per_second']} tokens/s, batched "
          f"{ours['tokens_per_second']} tokens/s: {ratio} times; wrote {RESULT}")  # fmt: skip


def first_prompts(tokenizer, template: str, settings: Regenerate, count: int) -> list[Prompt]:
    """The first user turns, with their system turns, of the first conversations."""
    prompts = []
    for row, conversation in enumerate(read_conversations(CONVERSATIONS)[:count]):
        asked = [m for m in conversation["messages"][:2] if m["role"] != "assistant"]
        token_ids = encode_prompt(tokenizer, template, asked)
        prompts.append(Prompt(row, len(asked), token_ids, settings.maximum_new_tokens, row))
    return prompts


if __name__ == "__main__":
    main()
