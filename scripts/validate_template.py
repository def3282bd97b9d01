"""Stage validate_template: prove that the chat template marks the replies and nothing else."""

import time
from itertools import islice
from pathlib import Path

from eagle.checksums import checked, small_files
from eagle.command_line import run_stage
from eagle.config import load_params
from eagle.files import whole_folder, write_json, write_text
from eagle.rendering import render
from eagle.sharegpt.conversations import conversations
from eagle.template.choice import choose_template
from eagle.template.proof import spans, validate
from eagle.template.template import encode
from eagle.tokens.tokenizer import load_tokenizer, stop_token_ids
from eagle.tracking import say_written
from eagle.verifier.configuration import context_of, load_config

VERIFIER = Path("resources/verifier")
REPLIES = Path("resources/replies/train.jsonl")
TEMPLATE = Path("results/template")
SHOWN = 5  # conversations in report.html


def main() -> None:
    started = time.monotonic()
    params = load_params()
    with checked(REPLIES, *small_files(VERIFIER)):
        tokenizer = load_tokenizer(VERIFIER)
        stop = stop_token_ids(VERIFIER)
        chosen = choose_template(params.template.file, tokenizer, stop, params.template.date)
        rows = list(islice(conversations(REPLIES), params.template.sample))
        length = min(params.tokens.maximum_model_length, context_of(load_config(VERIFIER)))
    report = validate(tokenizer, chosen, rows, stop, length)
    encoded = [encode(tokenizer, chosen.text, row["messages"], length) for row in rows[:SHOWN]]
    shown = [
        {"id": row["id"], "spans": spans(tokenizer, row_encoded)}
        for row, row_encoded in zip(rows, encoded, strict=False)
    ]
    with whole_folder(TEMPLATE) as folder:
        write_text(folder / "chat_template.jinja", chosen.text)
        write_json(folder / "report.json", report)
        write_text(
            folder / "report.html", render("template.html.jinja", report=report, shown=shown)
        )
    note = f"{report['conversations']} conversations, {report['mask_share']:.0%} of tokens masked"
    say_written("validate_template", started, TEMPLATE, note=note)


if __name__ == "__main__":
    run_stage(main, __doc__)
