"""Bring the shipped sample up to date: python -m tools.make_sample.

Conversations whose prompts have not changed keep their replies; the others are answered, 455 of
them in 14 minutes on 2 cores.

The prompts of resources/prompts/sample.yaml become ShareGPT-schema files in
resources/conversations, their replies written by the embedded verifier through the same code as
the regenerate_replies stage, and the held-out prompts become resources/bench/default.jsonl. Needs
resources/verifier (`dvc repro download_model`).
"""

import json
from itertools import chain
from pathlib import Path

import torch

from eagle.command_line import parser
from eagle.config import ROLES, Regenerate
from eagle.errors import one_clear_message
from eagle.files import read_json, write_json_lines, write_text
from eagle.replies.replies import Journal, TransformersBackend, regenerate
from eagle.sharegpt.turns import FINISH
from eagle.template.template import load_template
from eagle.tokens.tokenizer import load_tokenizer
from eagle.tracking import Progress
from eagle.verifier.verifier import Verifier
from tools.sample_prompts import bench_prompts, training_prompts

SAMPLE = Path("resources/conversations")
VERIFIER = Path("resources/verifier")
TEMPLATE = "resources/chat_templates/smollm2.jinja"
# 0.5 keeps the replies close to what greedy decoding meets in serving, with fewer endless loops
SETTINGS = Regenerate(
    enabled=True,
    backend="transformers",
    temperature=0.5,
    maximum_new_tokens=256,
    batch_size=64,
    dtype="bfloat16",
    seed=0,
)
MORE = "more"
"""The folder of the conversations that the default is not trained on; new ones go there. The order
in the folder `default` decides the order in which the default draft sees them."""


def unanswered(prompt: dict) -> dict:
    """A conversation whose assistant turns are still empty."""
    messages = [{"role": "system", "content": prompt["system"]}] if prompt["system"] else []
    for turn in prompt["turns"]:
        messages += [{"role": "user", "content": turn}, {"role": "assistant", "content": ""}]
    return {"id": prompt["id"], "messages": messages}


def as_sharegpt(row: dict) -> dict:
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    turns = [
        {"from": names[m["role"]], "value": m["content"]}
        | ({FINISH: m[FINISH]} if FINISH in m else {})
        for m in row["messages"]
    ]
    return {"id": row["id"], "conversations": turns}


def shipped() -> dict[Path, list[dict]]:
    """The rows of each file of the sample; each stays under 1 MB."""
    return {path: read_json(path) for path in sorted(SAMPLE.glob("*/*.json"))}


def already_answered() -> dict:
    """Conversations of the sample as it stands, by what the user and the system say in them."""
    answered = {}
    for row in chain.from_iterable(shipped().values()):
        messages = [
            {"role": ROLES[turn["from"]], "content": turn["value"]}
            | ({FINISH: turn[FINISH]} if FINISH in turn else {})
            for turn in row["conversations"]
        ]
        answered[asked(messages)] = messages
    return answered


def asked(messages: list[dict]) -> tuple[str, ...]:
    return tuple(m["content"] for m in messages if m["role"] != "assistant")


def main() -> None:
    rows = [unanswered(prompt) for prompt in training_prompts()]
    kept = already_answered()
    prompts = [row for row in rows if asked(row["messages"]) not in kept]
    tokenizer = load_tokenizer(VERIFIER)
    template = load_template(TEMPLATE, tokenizer)
    verifier = Verifier.load(VERIFIER, torch.bfloat16, torch.device("cpu"))
    replies = sum(message["role"] == "assistant" for row in prompts for message in row["messages"])
    backend = TransformersBackend(verifier, tokenizer, SETTINGS)
    journal = Journal(Path("runs"), SETTINGS.model_dump_json(), template, json.dumps(prompts))
    with journal, Progress("sample", replies - len(journal.replies), "replies") as progress:
        replied, _ = regenerate(prompts, backend, tokenizer, template, SETTINGS, journal, progress)
    kept |= {asked(row["messages"]): row["messages"] for row in replied}
    answered = [
        {"id": row["id"], "messages": kept[asked(row["messages"])]}
        for row in rows
        if asked(row["messages"]) in kept
    ]
    by_id = {row["id"]: as_sharegpt(row) for row in answered}
    files = shipped()
    known = {row["id"] for old in files.values() for row in old}
    for path, old in files.items():
        ids = [row["id"] for row in old if row["id"] in by_id]
        if path.parent.name == MORE:
            ids += [name for name in by_id if name not in known]
        lines = ",\n".join(json.dumps(by_id[name], ensure_ascii=False) for name in ids)
        write_text(path, f"[\n{lines}\n]\n")
    write_json_lines(Path("resources/bench/default.jsonl"), bench_prompts())
    journal.path.unlink()
    print(f"wrote {len(answered)} conversations to {SAMPLE}, {len(replied)} of them answered anew")


if __name__ == "__main__":
    parser("tools.make_sample", __doc__).parse_args()
    with one_clear_message():
        main()
