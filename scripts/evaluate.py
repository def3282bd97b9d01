"""Stage evaluate: agreement, acceptance, speed and losslessness of the exported draft."""

import time
from pathlib import Path

from eagle.checksums import checked, identity, small_files
from eagle.command_line import run_stage
from eagle.config import load_params
from eagle.draft.checkpoint import draft_hash
from eagle.evaluation.evaluate import evaluate
from eagle.files import sha256_of_file, whole_folder, write_json, write_text
from eagle.provenance import provenance
from eagle.questions import questions_file
from eagle.template.template import load_template
from eagle.tokens.token_set import TokenSet
from eagle.tokens.tokenizer import load_tokenizer
from eagle.tracking import say_written

VERIFIER = Path("resources/verifier")
DRAFT = Path("models/export/official")
TEMPLATE = Path("results/template/chat_template.jinja")
TRAINED_ON = Path("resources/tokens/train.safetensors")
HELD_OUT = Path("resources/tokens/validation.safetensors")
RESULTS = Path("results/evaluate")


def measure(draft: Path, results: Path) -> dict:
    """Measure a draft in the official layout, write `results` and return the metrics."""
    started = time.monotonic()
    params = load_params()
    with checked(TRAINED_ON, HELD_OUT, TEMPLATE, *small_files(VERIFIER)):
        tokenizer = load_tokenizer(VERIFIER)
        template = load_template(str(TEMPLATE), tokenizer)
        trained_on, held_out = TokenSet.load(TRAINED_ON), TokenSet.load(HELD_OUT)
    result = evaluate(
        params.evaluate,
        VERIFIER,
        draft,
        template,
        tokenizer,
        trained_on,
        held_out,
        params.machine.progress_seconds,
    )
    inputs = {
        "verifier": identity(VERIFIER),
        "draft": draft_hash(draft),
        "bench": sha256_of_file(questions_file(params.evaluate.bench)),
        "trained_on": sha256_of_file(TRAINED_ON),
        "held_out": sha256_of_file(HELD_OUT),
    }
    with whole_folder(results) as folder:
        write_json(folder / "metrics.json", result.metrics)
        write_json(folder / "details.json", result.details)
        write_json(folder / "samples.json", result.samples)
        write_text(folder / "per_prompt.csv", result.per_prompt.to_csv(index=False))
        seconds = time.monotonic() - started
        source = provenance(result.settings.model_dump(), inputs, seconds)
        write_json(folder / "provenance.json", source)
    metrics = result.metrics
    note = (
        f"tau {metrics['tau']:.2f}, {result.details['verdict']} "
        f"(speed-up {result.details['measured_speedup']:.2f}), "
        f"lossless {metrics['lossless']}"
    )
    say_written("evaluate", started, results, note=note)
    return metrics


def main() -> None:
    measure(DRAFT, RESULTS)


if __name__ == "__main__":
    run_stage(main, __doc__)
