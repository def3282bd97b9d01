"""Stage tokenize_dataset: write token ids and loss masks as memory-mapped files."""

import time
from collections import Counter
from pathlib import Path

from eagle.checksums import checked, small_files
from eagle.command_line import run_stage
from eagle.config import load_params
from eagle.files import sha256_of_file, sha256_of_json, whole_folder, write_json
from eagle.template.template import load_template
from eagle.tokens.tokenization import named_cuts, tokenize_file
from eagle.tokens.tokenizer import chat_template_hash, load_tokenizer, tokenizer_hash
from eagle.tracking import say_written
from eagle.verifier.configuration import context_of, load_config

VERIFIER = Path("resources/verifier")
REPLIES = Path("resources/replies")
TEMPLATE = Path("results/template/chat_template.jinja")
TOKENS = Path("resources/tokens")


def main() -> None:
    started = time.monotonic()
    params = load_params()
    with checked(REPLIES, TEMPLATE, *small_files(VERIFIER)):
        tokenizer = load_tokenizer(VERIFIER)
        template = load_template(str(TEMPLATE), tokenizer)
    longest, context = params.tokens.maximum_model_length, context_of(load_config(VERIFIER))
    length = min(longest, context)
    inputs = {
        "tokenizer_sha256": tokenizer_hash(VERIFIER),
        "template_sha256": sha256_of_file(TEMPLATE),
        "verifiers_template_sha256": chat_template_hash(tokenizer),
        "maximum_model_length": length,
    }
    manifest = inputs | {"made_with_sha256": sha256_of_json(inputs)}
    statistics = {}
    with whole_folder(TOKENS) as folder:
        for name in ("train", "validation"):
            manifest[name], statistics[name] = tokenize_file(
                REPLIES / f"{name}.jsonl",
                folder / f"{name}.safetensors",
                tokenizer,
                template,
                length,
                params.machine.data_processes,
                params.machine.progress_seconds,
            )
        write_json(folder / "manifest.json", manifest)
        write_json(folder / "statistics.json", statistics)
    counts = manifest["train"]
    notes = [
        f"{counts['tokens']:,} tokens to train on, {counts['assistant_tokens']:,} the assistant's"
    ]
    if context < longest:
        notes.append(f"tokens.maximum_model_length is above the verifier's context of {context:,}")
    if cuts := named_cuts(Counter(counts) + Counter(manifest["validation"]), length):
        notes.append(cuts)
    say_written("tokenize_dataset", started, TOKENS, note="; ".join(notes))


if __name__ == "__main__":
    run_stage(main, __doc__)
