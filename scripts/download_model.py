"""Stage download_model: put the verifier into resources/verifier, in transformers layout."""

import time
from pathlib import Path

from eagle.command_line import run_stage
from eagle.config import load_params
from eagle.files import whole_folder
from eagle.tracking import say_written
from eagle.verifier.download import fetch_verifier

VERIFIER = Path("resources/verifier")


def main() -> None:
    started = time.monotonic()
    params = load_params().verifier
    with whole_folder(VERIFIER) as folder:
        manifest = fetch_verifier(params.source, params.revision, folder)
    note = f"{len(manifest['files'])} files of {params.source}"
    say_written("download_model", started, VERIFIER, note=note)


if __name__ == "__main__":
    run_stage(main, __doc__)
