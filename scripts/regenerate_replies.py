"""Stage regenerate_replies: let the verifier write every reply; pass through when disabled."""

import shutil
import time
from pathlib import Path

import torch

from eagle.config import Params, load_params
from eagle.errors import one_clear_message
from eagle.files import sha256_of_file, whole_folder, write_json_lines
from eagle.replies.completion_server import CompletionServer
from eagle.replies.replies import Backend, Journal, TransformersBackend, regenerate
from eagle.sharegpt.conversations import read_conversations
from eagle.template.choice import choose_template
from eagle.tokens.tokenizer import load_tokenizer, stop_token_ids
from eagle.tracking import Progress, say_written
from eagle.verifier.verifier import Verifier, context_of

VERIFIER = Path("resources/verifier")
SHAREGPT = Path("resources/sharegpt")
REPLIES = Path("resources/replies")
RUNS = Path("runs")
SPLITS = ("train.jsonl", "validation.jsonl")


def main() -> None:
    started = time.monotonic()
    params = load_params()
    if not params.regenerate.enabled:
        with whole_folder(REPLIES) as folder:
            for name in SPLITS:
                shutil.copyfile(SHAREGPT / name, folder / name)
        note = "replies as they were (regenerate.enabled is false)"
    else:
        note = write_regenerated(params)
    say_written("regenerate_replies", started, REPLIES, note=note)


def write_regenerated(params: Params) -> str:
    """Write both splits, going on behind an interrupted run's replies; returns a note."""
    settings = params.regenerate
    tokenizer = load_tokenizer(VERIFIER)
    template = choose_template(params.template.file, tokenizer, stop_token_ids(VERIFIER)).text
    # a smaller batch may follow on one that did not fit; it changes rounding alone
    asked = settings.model_dump_json(exclude={"batch_size"})
    identity = [asked, template, sha256_of_file(VERIFIER / "manifest.json")]
    backend: Backend
    if settings.backend == "openai":
        backend = CompletionServer(settings, params.machine, context_of(VERIFIER))
    else:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        verifier = Verifier.load(VERIFIER, getattr(torch, settings.dtype), device)
        backend = TransformersBackend(verifier, tokenizer, settings)
    notes, journals = [], []
    with whole_folder(REPLIES) as folder:
        for name in SPLITS:
            rows = read_conversations(SHAREGPT / name)
            journal = Journal(RUNS, *identity, sha256_of_file(SHAREGPT / name))
            count = sum(m["role"] == "assistant" for row in rows for m in row["messages"])
            left = count - len(journal.replies)
            with journal, Progress(name, left, "replies", params.machine.progress_seconds) as shown:
                answered, counts = regenerate(
                    rows, backend, tokenizer, template, settings, journal, shown
                )
            write_json_lines(folder / name, answered)
            said = ", ".join(f"{value:,} {what}" for what, value in counts.items())
            notes.append(f"{name}: {said.replace('_', ' ')}")
            journals.append(journal)
    for journal in journals:  # only now is nothing lost with them
        journal.path.unlink()
    return "; ".join(notes)


if __name__ == "__main__":
    with one_clear_message():
        main()
