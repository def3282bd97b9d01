"""Prepare an exported draft for the hub, with the results as metadata in its card.

    python -m tools.push_to_hub OWNER/NAME --layout vllm              # prepare only
    HF_TOKEN=… python -m tools.push_to_hub OWNER/NAME --layout vllm --upload

Without --upload nothing is sent; models/publish/LAYOUT holds the files that would be.
"""

import shutil
from pathlib import Path

from eagle.checksums import check
from eagle.command_line import parser
from eagle.draft.checkpoint import draft_hash
from eagle.errors import InputError, one_clear_message
from eagle.files import read_json, whole_folder, write_text
from eagle.hub import publish
from eagle.report.card import Measured, card_for_hub

EXPORT = Path("models/export")
EVALUATED = Path("results/evaluate")
PREPARED = Path("models/publish")


def prepare(repository: str, layout: str) -> Path:
    """Copy a layout's folder to models/publish and add the results to its card's metadata.

    Raises:
        InputError: nothing is exported or evaluated, or it is damaged, or the results belong to
            another draft.
    """
    if not (EXPORT / layout / "README.md").is_file():
        there = ", ".join(path.parent.name for path in sorted(EXPORT.glob("*/README.md")))
        raise InputError(
            f"{EXPORT / layout}: no exported draft with a card (layouts there: {there or 'none'}); "
            "run `dvc repro`"
        )
    check(EXPORT / layout, EVALUATED)
    evaluated = read_json(EVALUATED / "provenance.json")
    if evaluated["inputs"]["draft"] != draft_hash(EXPORT / "official"):
        raise InputError(
            f"{EVALUATED}: the results are not those of the draft in {EXPORT}; run `dvc repro`"
        )
    target = PREPARED / layout
    measured = Measured(
        evaluated, read_json(EVALUATED / "metrics.json"), read_json(EVALUATED / "details.json")
    )
    with whole_folder(target) as folder:
        for path in (EXPORT / layout).glob("[!.]*"):
            shutil.copyfile(path, folder / path.name)
        text = (folder / "README.md").read_text(encoding="utf-8")
        write_text(folder / "README.md", card_for_hub(text, repository, layout, measured))
    return target


def main() -> None:
    options = parser("tools.push_to_hub", __doc__)
    options.add_argument("repository", help="OWNER/NAME on the hub")
    options.add_argument("--layout", required=True, help="official, vllm or sglang")
    options.add_argument("--upload", action="store_true", help="otherwise nothing is sent")
    arguments = options.parse_args()
    if arguments.repository.count("/") != 1:
        raise InputError(f"{arguments.repository}: name the repository as OWNER/NAME")
    folder = prepare(arguments.repository, arguments.layout)
    for path in sorted(folder.iterdir()):
        print(f"{path.stat().st_size:>14,} bytes  {path}")
    if arguments.upload:
        print(f"push_to_hub: uploaded, {publish(folder, arguments.repository)}")
    else:
        print(f"push_to_hub: nothing was sent; look at {folder}/README.md, then add --upload")


if __name__ == "__main__":
    with one_clear_message():
        main()
