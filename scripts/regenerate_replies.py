"""Stage regenerate_replies: let the verifier write every reply; pass through when disabled."""

import shutil
import time
from pathlib import Path

import torch

from eagle.config import load_params
from eagle.conversations import read_conversations
from eagle.errors import one_clear_message
from eagle.files import whole_folder, write_json_lines
from eagle.replies import regenerate
from eagle.template import load_template
from eagle.tracking import Progress, say_written
from eagle.verifier import Verifier, load_tokenizer

VERIFIER = Path("resources/verifier")
SHAREGPT = Path("resources/sharegpt")
REPLIES = Path("resources/replies")
SPLITS = ("train.jsonl", "validation.jsonl")


def main() -> None:
    started = time.monotonic()
    params = load_params()
    with whole_folder(REPLIES) as folder:
        if params.regenerate.enabled:
            write_regenerated(folder, params)
            note = f"replies by {params.verifier.source}"
        else:
            for name in SPLITS:
                shutil.copyfile(SHAREGPT / name, folder / name)
            note = "replies as they were (regenerate.enabled is false)"
    say_written("regenerate_replies", started, REPLIES, note=note)


def write_regenerated(folder: Path, params) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = load_tokenizer(VERIFIER)
    template = load_template(params.template.file, tokenizer)
    verifier = Verifier.load(VERIFIER, getattr(torch, params.regenerate.dtype), device)
    for name in SPLITS:
        rows = read_conversations(SHAREGPT / name)
        count = sum(m["role"] == "assistant" for row in rows for m in row["messages"])
        with Progress(name, count, "replies", params.machine.progress_seconds) as progress:
            answered = regenerate(rows, verifier, tokenizer, template, params.regenerate, progress)
        write_json_lines(folder / name, answered)


if __name__ == "__main__":
    with one_clear_message():
        main()
