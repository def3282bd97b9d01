"""Stage export_checkpoint: the draft in the layouts that serving engines load, each with a card."""

import time
from pathlib import Path

import pandas as pd

from eagle.command_line import run_stage
from eagle.config import load_params
from eagle.draft.checkpoint import load_draft
from eagle.export.layouts import ARCHITECTURES, export
from eagle.files import read_json, whole_folder, write_text
from eagle.report.card import card
from eagle.tracking import say_written

VERIFIER = Path("resources/verifier")
DRAFT = Path("models/draft")
TRAINED = Path("results/train")
EXPORT = Path("models/export")


def main() -> None:
    started = time.monotonic()
    params = load_params()
    checkpoint = params.export.checkpoint
    draft = load_draft(DRAFT / checkpoint)
    validations = pd.read_csv(TRAINED / "validations.csv")
    row = validations["validation_loss"].idxmin() if checkpoint == "best" else -1
    validation = validations.iloc[row].to_dict()
    verifier = read_json(VERIFIER / "manifest.json")
    trained = read_json(TRAINED / "provenance.json")
    with whole_folder(EXPORT) as folder:
        for layout in ARCHITECTURES:
            (folder / layout).mkdir()
            export(draft, VERIFIER, layout, folder / layout)
            text = card(layout, verifier, params.verifier.license, trained, validation)
            write_text(folder / layout / "README.md", text)
    say_written("export_checkpoint", started, *(EXPORT / layout for layout in ARCHITECTURES))


if __name__ == "__main__":
    run_stage(main, __doc__)
