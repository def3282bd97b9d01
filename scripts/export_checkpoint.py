"""Stage export_checkpoint: the draft in the layouts that serving engines load."""

import os
import tempfile
import time
from pathlib import Path

from eagle.command_line import run_stage
from eagle.config import load_params
from eagle.draft.checkpoint import load_draft
from eagle.export.layouts import ARCHITECTURES, export
from eagle.tracking import say_written

VERIFIER = Path("resources/verifier")
DRAFT = Path("models/draft")
EXPORT = Path("models/export")


def main() -> None:
    started = time.monotonic()
    draft = load_draft(DRAFT / load_params().export.checkpoint)
    EXPORT.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=EXPORT.parent, prefix=".export-") as scratch:
        for layout in ARCHITECTURES:
            folder = Path(scratch, layout)
            folder.mkdir()
            export(draft, VERIFIER, layout, folder)
        # file by file: the stage write_report puts a card into the same folders
        for path in Path(scratch).glob("*/*"):
            target = EXPORT / path.relative_to(scratch)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
    say_written("export_checkpoint", started, *(EXPORT / layout for layout in ARCHITECTURES))


if __name__ == "__main__":
    run_stage(main, __doc__)
