"""Stage export_checkpoint: the draft in the layouts that serving engines load."""

import time
from pathlib import Path

from eagle.checkpoint import load_draft
from eagle.config import load_params
from eagle.errors import one_clear_message
from eagle.export import ARCHITECTURES, export
from eagle.files import whole_folder
from eagle.tracking import say_written

VERIFIER = Path("resources/verifier")
DRAFT = Path("models/draft")
EXPORT = Path("models/export")


def main() -> None:
    started = time.monotonic()
    params = load_params().export
    draft = load_draft(DRAFT / params.checkpoint)
    with whole_folder(EXPORT) as folder:
        for layout in ARCHITECTURES:
            (folder / layout).mkdir()
            export(draft, VERIFIER, layout, folder / layout)
    say_written("export_checkpoint", started, *(EXPORT / layout for layout in ARCHITECTURES))


if __name__ == "__main__":
    with one_clear_message():
        main()
