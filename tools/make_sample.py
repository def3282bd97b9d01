"""Write the shipped sample again: python -m tools.make_sample (about 25 minutes on 2 cores).

The prompts of tools/sample_prompts.py become ShareGPT-schema files in resources/conversations,
their replies written by the embedded verifier through the same code as the regenerate_replies
stage, and the held-out prompts become resources/bench/default.jsonl. Needs resources/verifier
(`dvc repro download_model`).
"""

import json
from pathlib import Path

import torch

from eagle.config import Regenerate
from eagle.errors import one_clear_message
from eagle.files import write_json_lines, write_text
from eagle.replies import regenerate
from eagle.template import load_template
from eagle.tracking import Progress
from eagle.verifier import Verifier, load_tokenizer
from tools.sample_prompts import bench_prompts, training_prompts

VERIFIER = Path("resources/verifier")
TEMPLATE = "resources/chat_templates/smollm2.jinja"
# 0.5 keeps the replies close to what greedy decoding meets in serving, with fewer endless loops
SETTINGS = Regenerate(enabled=True, temperature=0.5, maximum_new_tokens=256, batch_size=64)
FILES = 2  # each stays under 1 MB


def unanswered(prompt: dict) -> dict:
    """A conversation whose assistant turns are still empty."""
    messages = [{"role": "system", "content": prompt["system"]}] if prompt["system"] else []
    for turn in prompt["turns"]:
        messages += [{"role": "user", "content": turn}, {"role": "assistant", "content": ""}]
    return {"id": prompt["id"], "messages": messages}


def as_sharegpt(row: dict) -> dict:
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    turns = [{"from": names[m["role"]], "value": m["content"]} for m in row["messages"]]
    return {"id": row["id"], "conversations": turns}


def main() -> None:
    prompts = [unanswered(prompt) for prompt in training_prompts()]
    tokenizer = load_tokenizer(VERIFIER)
    template = load_template(TEMPLATE, tokenizer)
    verifier = Verifier.load(VERIFIER, torch.bfloat16, torch.device("cpu"))
    replies = sum(message["role"] == "assistant" for row in prompts for message in row["messages"])
    with Progress("sample", replies, "replies") as progress:
        answered = regenerate(prompts, verifier, tokenizer, template, SETTINGS, progress)
    for part in range(FILES):
        rows = [as_sharegpt(row) for row in answered[part::FILES]]
        lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        write_text(Path(f"resources/conversations/sample-{part + 1}.json"), f"[\n{lines}\n]\n")
    write_json_lines(Path("resources/bench/default.jsonl"), bench_prompts())
    print(f"wrote {len(answered)} conversations to resources/conversations")


if __name__ == "__main__":
    with one_clear_message():
        main()
