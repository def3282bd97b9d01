"""Make an exported draft ready for the hub: its card with the evaluation's results.

    python -m tools.push_to_hub OWNER/NAME --layout vllm              # to look at first
    HF_TOKEN=… python -m tools.push_to_hub OWNER/NAME --layout vllm --upload

Without --upload nothing leaves the machine: models/publish/LAYOUT holds what would be uploaded.
"""

import argparse
import shutil
from pathlib import Path

from eagle.errors import InputError, one_clear_message
from eagle.files import read_json, sha256_of_folder, whole_folder, write_text
from eagle.hub import publish
from eagle.report.card import card_with_results

EXPORT = Path("models/export")
EVALUATED = Path("results/evaluate")
READY = Path("models/publish")


def make_ready(repository: str, layout: str) -> Path:
    """Copy a layout's folder to models/publish and put the results into its card.

    Raises:
        InputError: nothing exported or evaluated, or the results are another draft's.
    """
    if not (EXPORT / layout / "README.md").is_file():
        there = ", ".join(path.parent.name for path in sorted(EXPORT.glob("*/README.md")))
        raise InputError(
            f"{EXPORT / layout}: no exported draft with a card (layouts there: {there or 'none'}); "
            "run `dvc repro`"
        )
    evaluated = read_json(EVALUATED / "provenance.json")
    if evaluated["inputs"]["draft"] != sha256_of_folder(EXPORT / "official"):
        raise InputError(
            f"{EVALUATED}: the results are not those of the draft in {EXPORT}; run `dvc repro`"
        )
    target = READY / layout
    with whole_folder(target) as folder:
        shutil.copytree(EXPORT / layout, folder, dirs_exist_ok=True)
        card = card_with_results(
            (folder / "README.md").read_text(encoding="utf-8"),
            repository,
            evaluated,
            read_json(EVALUATED / "metrics.json"),
            read_json(EVALUATED / "details.json"),
        )
        write_text(folder / "README.md", card)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.push_to_hub")
    parser.add_argument("repository", help="OWNER/NAME on the hub")
    parser.add_argument("--layout", required=True, help="official, vllm or sglang")
    parser.add_argument("--upload", action="store_true", help="otherwise nothing is sent")
    asked = parser.parse_args()
    if asked.repository.count("/") != 1:
        raise InputError(f"{asked.repository}: name the repository as OWNER/NAME")
    folder = make_ready(asked.repository, asked.layout)
    for path in sorted(folder.iterdir()):
        print(f"{path.stat().st_size:>14,} bytes  {path}")
    if asked.upload:
        print(f"push_to_hub: uploaded, {publish(folder, asked.repository)}")
    else:
        print(f"push_to_hub: nothing was sent; look at {folder}/README.md, then add --upload")


if __name__ == "__main__":
    with one_clear_message():
        main()
