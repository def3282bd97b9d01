"""Stage export_checkpoint: the draft in the layouts that serving engines load."""

import time
from contextlib import ExitStack
from pathlib import Path

from eagle.command_line import run_stage
from eagle.config import load_params
from eagle.draft.checkpoint import load_draft
from eagle.export.layouts import ARCHITECTURES, export
from eagle.files import whole_files
from eagle.tracking import say_written

VERIFIER = Path("resources/verifier")
DRAFT = Path("models/draft")
EXPORT = Path("models/export")


def main() -> None:
    started = time.monotonic()
    draft = load_draft(DRAFT / load_params().export.checkpoint)
    with ExitStack() as stack:  # no file is replaced before all are written
        for layout in ARCHITECTURES:
            # file by file: the stage write_report puts a card into the same folder
            export(draft, VERIFIER, layout, stack.enter_context(whole_files(EXPORT / layout)))
    say_written("export_checkpoint", started, *(EXPORT / layout for layout in ARCHITECTURES))


if __name__ == "__main__":
    run_stage(main, __doc__)
