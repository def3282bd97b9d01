"""Stage export_checkpoint: the draft in the layouts that serving engines load."""

import time
from contextlib import ExitStack
from pathlib import Path

from eagle.checksums import checked
from eagle.command_line import run_stage
from eagle.config import load_params
from eagle.draft.checkpoint import load_draft
from eagle.export.layouts import ARCHITECTURES, export
from eagle.files import hashes_of, whole_files, write_checksums
from eagle.tracking import say_written

VERIFIER = Path("resources/verifier")
DRAFT = Path("models/draft")
EXPORT = Path("models/export")


def main() -> None:
    started = time.monotonic()
    checkpoint = DRAFT / load_params().export.checkpoint
    hashes = {}
    # no file is replaced before all are written, from whole ones
    with ExitStack() as stack, checked(checkpoint, VERIFIER):
        draft = load_draft(checkpoint)
        for layout in ARCHITECTURES:
            # file by file: the stage write_report puts a card into the same folder
            folder = stack.enter_context(whole_files(EXPORT / layout))
            export(draft, VERIFIER, layout, folder)
            files = hashes_of(folder)
            hashes |= {f"{layout}/{name}": sha256 for name, sha256 in files.items()}
    write_checksums(EXPORT, hashes)
    say_written("export_checkpoint", started, *(EXPORT / layout for layout in ARCHITECTURES))


if __name__ == "__main__":
    run_stage(main, __doc__)
