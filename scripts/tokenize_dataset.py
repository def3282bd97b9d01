"""Stage tokenize_dataset: token ids and loss masks, memory-mapped."""

import time
from pathlib import Path

from eagle.config import load_params
from eagle.conversations import read_conversations
from eagle.errors import one_clear_message
from eagle.files import sha256_of_file, whole_folder, write_json
from eagle.template import load_template
from eagle.tokens import tokenize
from eagle.tracking import Progress, say_written
from eagle.verifier import load_tokenizer, tokenizer_hash

VERIFIER = Path("resources/verifier")
REPLIES = Path("resources/replies")
TEMPLATE = Path("results/template/chat_template.jinja")
TOKENS = Path("resources/tokens")


def main() -> None:
    started = time.monotonic()
    params = load_params()
    tokenizer = load_tokenizer(VERIFIER)
    template = load_template(str(TEMPLATE), tokenizer)
    length = params.tokens.maximum_model_length
    manifest = {
        "tokenizer_sha256": tokenizer_hash(VERIFIER),
        "template_sha256": sha256_of_file(TEMPLATE),
        "maximum_model_length": length,
    }
    with whole_folder(TOKENS) as folder:
        for name in ("train", "validation"):
            rows = read_conversations(REPLIES / f"{name}.jsonl")
            seconds = params.machine.progress_seconds
            with Progress(f"tokenize {name}", len(rows), "conversations", seconds) as progress:
                tokens, manifest[name] = tokenize(rows, tokenizer, template, length, progress)
            tokens.save(folder / f"{name}.safetensors")
        write_json(folder / "manifest.json", manifest)
    counts = manifest["train"]
    note = (
        f"{counts['tokens']:,} tokens to train on, {counts['assistant_tokens']:,} the assistant's"
    )
    say_written("tokenize_dataset", started, TOKENS, note=note)


if __name__ == "__main__":
    with one_clear_message():
        main()
