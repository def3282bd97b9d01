"""Put the draft of the last `make repro` into resources/demo: python -m tools.make_demo.

tools/demo.py shows it. Copied are the weights in models/export/vllm, which has none of the
verifier's, their provenance.json, and the verifier's manifest. Written are the tokens that can be
drafted on a CPU: those that the assistant says most often in resources/tokens. `python -m
tools.verify resources/demo` compares the folder with this checkout.
"""

import shutil
from pathlib import Path

from eagle.checksums import checked, small_files
from eagle.command_line import parser
from eagle.draft.automatic import automatic_size
from eagle.errors import one_clear_message
from eagle.evaluation.models import frequent_tokens
from eagle.files import read_json, whole_folder, write_json, write_text
from eagle.tokens.token_set import TokenSet
from scripts.evaluate import TRAINED_ON, VERIFIER
from tools.demo import DEMO, DRAFTED, MANIFEST

EXPORT = Path("models/export/vllm")


def readme(folder: Path) -> str:
    """What the folder is, and what made it."""
    training = read_json(folder / "provenance.json")["training"]
    manifest = read_json(folder / MANIFEST)
    inputs = "".join(f"| {name} | `{hash}` |\n" for name, hash in training["inputs"].items())
    changed = ", with local changes" if training["git_dirty"] else ""
    return (
        "# The draft of `make demo`\n\n"
        f"`make repro` trained it at commit {training['git_commit']}{changed}, on "
        f"{training['date'][:10]}, with {training['hardware']['cpu']}. `provenance.json` has all "
        f"parameters. The verifier is {manifest['source']} {manifest['revision'] or ''}; "
        f"`{MANIFEST}` has its hashes. `{DRAFTED}` lists the tokens that are drafted, the most "
        "frequent one first.\n\n"
        "| input | SHA-256 |\n|---|---|\n"
        f"{inputs}\n"
        "To make this folder again: `make repro`, then `python -m tools.make_demo`. To compare it "
        "with a checkout: `python -m tools.verify resources/demo`.\n"
    )


def main() -> None:
    parser("tools.make_demo", __doc__).parse_args()
    with checked(EXPORT, TRAINED_ON, *small_files(VERIFIER)), whole_folder(DEMO) as folder:
        for name in ("config.json", "model.safetensors", "provenance.json"):
            shutil.copyfile(EXPORT / name, folder / name)
        shutil.copyfile(VERIFIER / "manifest.json", folder / MANIFEST)
        count = automatic_size("auto", "cpu")
        tokens = frequent_tokens(TokenSet.load(TRAINED_ON), VERIFIER, count)
        write_json(folder / DRAFTED, tokens.tolist())
        write_text(folder / "README.md", readme(folder))
    print(f"wrote {DEMO}")


if __name__ == "__main__":
    with one_clear_message():
        main()
