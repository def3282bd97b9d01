"""Measure a published EAGLE-1 draft in the same way as a draft of one's own.

    python -m tools.measure_draft hub:OWNER/NAME --revision COMMIT --allow-pickle
    python -m tools.measure_draft path:FOLDER

The draft is in the official layout (SafeAILab/EAGLE) and belongs to the verifier of params.yaml.
The other inputs of `evaluate` come from `dvc repro tokenize_dataset`; nothing is trained. The draft
is written to models/imported/NAME and the results to results/imported/NAME, where NAME is that of
the folder or OWNER--NAME; a table compares them with those of one's own draft, if there are any.
Paired differences follow, prompt by prompt (tools/compare.py compares any results).
The section `evaluate` of params.yaml tells how to measure. Serving engines draft from all tokens
(evaluate.draft_vocabulary: null).
"""

import re
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from eagle.command_line import parser
from eagle.errors import InputError, one_clear_message
from eagle.evaluation.comparison import differences
from eagle.export.layouts import export
from eagle.export.published import fetch_draft, read_published
from eagle.files import read_json, sha256_of_folder, whole_folder, write_json
from scripts.evaluate import RESULTS, VERIFIER, measure
from tools.compare import print_differences, read_run

DRAFTS = Path("models/imported")
MEASURED = Path("results/imported")


def import_draft(source: str, revision: str | None, allow_pickle: bool) -> Path:
    """Write a published draft to models/imported, as safetensors with a complete config.

    Raises:
        InputError: the draft cannot be fetched or read, or it belongs to another verifier.
    """
    if not re.match("(path|hub):.", source):
        raise InputError(f"{source}: name the draft as path:FOLDER or hub:OWNER/NAME")
    if source.startswith("hub:") and not re.fullmatch("[0-9a-f]{40}", revision or ""):
        raise InputError(f"{source}: a hub draft needs --revision, the 40-character commit")
    kind, _, place = source.partition(":")
    target = DRAFTS / (Path(place).resolve().name if kind == "path" else place.replace("/", "--"))
    with tempfile.TemporaryDirectory() as fetched, whole_folder(target) as folder:
        published = fetch_draft(source, revision, allow_pickle, Path(fetched))
        export(read_published(published, VERIFIER, allow_pickle), VERIFIER, "official", folder)
        origin = {
            "source": source,
            "revision": revision,
            "published_sha256": sha256_of_folder(published),
        }
        write_json(folder / "manifest.json", origin)
    return target


def main() -> None:
    options = parser("tools.measure_draft", __doc__)
    options.add_argument("source", help="path:FOLDER or hub:OWNER/NAME")
    options.add_argument("--revision", help="hub: the 40-character commit")
    options.add_argument(
        "--allow-pickle", action="store_true", help="read pytorch_model.bin, its tensors only"
    )
    arguments = options.parse_args()
    draft = import_draft(arguments.source, arguments.revision, arguments.allow_pickle)
    measured = measure(draft, MEASURED / draft.name)
    file = RESULTS / "metrics.json"
    own = read_json(file) if file.is_file() else {}
    table = Table("measure", draft.name, "your own draft")
    for name, value in measured.items():
        table.add_row(name, str(value), str(own.get(name, "")))
    Console().print(table)
    if own:
        runs = [read_run(str(folder)) for folder in (RESULTS, MEASURED / draft.name)]
        print_differences(differences([run.evaluated for run in runs]))


if __name__ == "__main__":
    with one_clear_message():
        main()
