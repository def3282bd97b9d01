"""Stage write_report: the report on the whole run, and the cards of the exported drafts."""

import time
from pathlib import Path

import pandas as pd

from eagle.base_params import MARK, PARAMS, base_text, values_of
from eagle.checksums import check, read_checksums
from eagle.command_line import run_stage
from eagle.config import load_params
from eagle.errors import InputError
from eagle.files import (
    read_json,
    sha256_of_file,
    whole_folder,
    write_checksums,
    write_json,
    write_text,
)
from eagle.rendering import render
from eagle.report import story, tables
from eagle.report.card import LIBRARIES, Measured, Trained, card, serving, title_of
from eagle.report.charts import charts
from eagle.report.paper import compare_with_paper
from eagle.tracking import say_written, tracker_of

RESULTS = Path("results")
CONVERSATIONS = Path("resources/sharegpt/statistics.json")
TOKENS = Path("resources/tokens/manifest.json")
LENGTHS = Path("resources/tokens/statistics.json")
PROOF = Path("results/template/report.json")
PLOTS = RESULTS / "plots"
VERIFIER = Path("resources/verifier/manifest.json")
EXPORT = Path("models/export")
CARD, ORIGIN = "README.md", "provenance.json"
MARKDOWN, HTML = RESULTS / "report.md", RESULTS / "report.html"
RUNS = Path("runs")  # ClearML's offline sessions lie there, as training's


def main() -> None:
    started = time.monotonic()
    params = load_params()
    check(
        RESULTS / "train",
        RESULTS / "evaluate",
        EXPORT,
        PROOF,
        CONVERSATIONS,
        TOKENS,
        LENGTHS,
        VERIFIER,
    )
    verifier = read_json(VERIFIER)
    history = pd.read_csv(RESULTS / "train/history.csv")
    trained_metrics = read_json(RESULTS / "train/metrics.json")
    validations = pd.read_csv(RESULTS / "train/validations.csv")
    train_source = read_json(RESULTS / "train/provenance.json")
    measured = Measured(
        *(read_json(RESULTS / f"evaluate/{n}.json") for n in ("provenance", "metrics", "details"))
    )
    source, metrics, details = measured
    per_prompt = pd.read_csv(RESULTS / "evaluate/per_prompt.csv")
    statistics = read_json(CONVERSATIONS)
    pictures = charts(history, validations, details, read_json(LENGTHS))
    paper = compare_with_paper(params.verifier.source, source["parameters"], metrics, details)
    values = {
        "title": title_of(verifier),
        "verdict": story.verdict_line(metrics, details),
        "measured": story.measured_text(verifier, source),
        "headline": story.headline(metrics, details),
        "serving": serving(verifier, details),
        "engine_chain": story.engine_chain_text(details, source["hardware"]),
        "speed": story.speed_text(metrics, details),
        "evaluated": story.evaluation_text(details, per_prompt),
        "forecast": story.forecast_text(details) if details["forecasts"] else None,
        "decoder": details["decoder"]["name"],
        "samples": read_json(RESULTS / "evaluate/samples.json"),
        "template": read_json(PROOF),
        "paper": paper,
        "command": story.command_of(source),
        "before_the_command": story.before_the_command(source),
        "charts": pictures,
        **_parameters(train_source, source),
        "acceptance": tables.acceptance_table(details),
        "groups": tables.groups_table(details),
        "forecasts": tables.forecasts_table(details),
        "prompts": tables.prompts_table(per_prompt),
        "definitions": tables.definitions_table(details),
        "paper_row": paper and tables.paper_table(paper),
        "training": tables.training_table(trained_metrics, history, validations, train_source),
        "rows": tables.rows_table(statistics),
        "changes_of_rows": tables.changes_of_rows_table(statistics),
        "tokens": tables.tokens_table(read_json(TOKENS)),
        "provenance": tables.provenance_table(train_source, source),
        "inputs": tables.inputs_table(train_source, source),
    }
    with whole_folder(PLOTS) as folder:
        for name, picture in pictures.items():
            write_text(folder / f"{name}.svg", picture.svg)
    write_text(MARKDOWN, render("report.md.jinja", **values))
    write_text(HTML, render("report.html.jinja", **values))
    checkpoint = params.export.checkpoint
    row = validations["validation_loss"].idxmin() if checkpoint == "best" else -1
    trained = Trained(train_source, validations.iloc[row].to_dict())
    for layout in LIBRARIES:
        folder = EXPORT / layout
        write_text(
            folder / CARD, card(layout, verifier, params.verifier.license, trained, measured)
        )
        origin = {"layout": layout, "checkpoint": checkpoint}
        write_json(folder / ORIGIN, origin | {"training": train_source, "evaluation": source})
        exported = read_checksums(EXPORT).hashes
        hashes = {path.name: sha for path, sha in exported.items() if path.parent == folder}
        beside = {name: sha256_of_file(folder / name) for name in (CARD, ORIGIN)}
        write_checksums(folder, hashes | beside)
    with tracker_of("eagle", "report", params.model_dump(), RUNS / "clearml") as tracker:
        numbers = {n: float(v) for n, v in (metrics | trained_metrics).items() if v is not None}
        shown = {f"plots/{name}": PLOTS / f"{name}.svg" for name in pictures}
        kept = {"results": RESULTS, "draft": EXPORT / "vllm"}
        tracker.results(numbers, shown | {"report/report.html": HTML}, kept)
    say_written("write_report", started, MARKDOWN, HTML, *(EXPORT / name for name in LIBRARIES))


def _parameters(training: dict, evaluation: dict) -> dict:
    """params.yaml: its recipe, what differs from the base, and all of it but `machine`, which
    changes no result and may be that of another machine."""
    text = PARAMS.read_text(encoding="utf-8")
    params = {
        key: value for key, value in values_of(text).items() if not key.startswith("machine.")
    }
    try:
        changes = tables.changes_table(values_of(base_text()), params)
    except InputError:  # no git, or a clone without history
        changes = None
    return {
        "recipe": text.splitlines()[0].removeprefix(MARK) if text.startswith(MARK) else None,
        "changes": changes,
        "parameters": tables.parameters_table(params, training, evaluation),
    }


if __name__ == "__main__":
    run_stage(main, __doc__)
