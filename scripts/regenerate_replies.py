"""Stage regenerate_replies: let the verifier write all replies; if disabled, copy the data."""

import shutil
import time
from pathlib import Path

import torch

from eagle.checksums import checked, small_files
from eagle.command_line import run_stage
from eagle.config import Params, load_params
from eagle.files import sha256_of_file, whole_folder, write_json_lines
from eagle.replies.completion_server import CompletionServer
from eagle.replies.replies import Backend, Journal, TransformersBackend, regenerate
from eagle.sharegpt.conversations import read_conversations
from eagle.template.choice import choose_template
from eagle.tokens.tokenizer import load_tokenizer, stop_token_ids
from eagle.tracking import Progress, say_written
from eagle.verifier.admission import admit
from eagle.verifier.configuration import context_of
from eagle.verifier.verifier import Verifier

VERIFIER = Path("resources/verifier")
SHAREGPT = Path("resources/sharegpt")
REPLIES = Path("resources/replies")
RUNS = Path("runs")
SPLITS = ("train.jsonl", "validation.jsonl")


def main() -> None:
    started = time.monotonic()
    params = load_params()
    if not params.regenerate.enabled:
        with whole_folder(REPLIES) as folder, checked(SHAREGPT):
            for name in SPLITS:
                shutil.copyfile(SHAREGPT / name, folder / name)
        note = "replies as they were (regenerate.enabled is false)"
    else:
        note = write_regenerated(params)
    say_written("regenerate_replies", started, REPLIES, note=note)


def write_regenerated(params: Params) -> str:
    """Write both splits, with the replies of an interrupted run if there are any.

    Returns:
        A note with the counts, for the line that ends the stage.
    """
    settings = params.regenerate
    with checked(SHAREGPT, *small_files(VERIFIER)):
        tokenizer = load_tokenizer(VERIFIER)
        stop = stop_token_ids(VERIFIER)
        template = choose_template(params.template.file, tokenizer, stop, params.template.date).text
    # without the batch size, which changes only rounding: after a batch that did not fit in memory,
    # the run may continue with smaller ones
    settings_json = settings.model_dump_json(exclude={"batch_size"})
    inputs = [settings_json, template, sha256_of_file(VERIFIER / "manifest.json")]
    backend: Backend
    if settings.backend == "openai":
        backend = CompletionServer(settings, params.machine, context_of(admit(VERIFIER).config))
    else:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with checked(VERIFIER):
            verifier = Verifier.load(VERIFIER, getattr(torch, settings.dtype), device)
        backend = TransformersBackend(verifier, tokenizer, settings)
    notes, journals = [], []
    with whole_folder(REPLIES) as folder:
        for name in SPLITS:
            rows = read_conversations(SHAREGPT / name)
            journal = Journal(RUNS, *inputs, sha256_of_file(SHAREGPT / name))
            replies = sum(m["role"] == "assistant" for row in rows for m in row["messages"])
            missing = replies - len(journal.replies)
            seconds = params.machine.progress_seconds
            with journal, Progress(name, missing, "replies", seconds) as progress:
                regenerated, counts = regenerate(
                    rows, backend, tokenizer, template, settings, journal, progress
                )
            write_json_lines(folder / name, regenerated)
            counts_text = ", ".join(f"{value:,} {key}" for key, value in counts.items())
            notes.append(f"{name}: {counts_text.replace('_', ' ')}")
            journals.append(journal)
    for journal in journals:  # after both splits are written
        journal.path.unlink()
    return "; ".join(notes)


if __name__ == "__main__":
    run_stage(main, __doc__)
