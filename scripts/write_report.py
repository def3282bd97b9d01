"""Stage write_report: the report on the whole run, and the cards of the exported drafts."""

import time
from pathlib import Path

import pandas as pd

from eagle.command_line import run_stage
from eagle.config import load_params
from eagle.files import read_json, whole_folder, write_text
from eagle.rendering import render
from eagle.report.card import LIBRARIES, Measured, Trained, card
from eagle.report.charts import charts
from eagle.report.paper import compare_with_paper
from eagle.report.story import report_text
from eagle.tracking import say_written

RESULTS = Path("results")
TOKENS = Path("resources/tokens/manifest.json")
STATISTICS = Path("resources/tokens/statistics.json")
PLOTS = RESULTS / "plots"
VERIFIER = Path("resources/verifier/manifest.json")
EXPORT = Path("models/export")
MARKDOWN, HTML = RESULTS / "report.md", RESULTS / "report.html"


def main() -> None:
    started = time.monotonic()
    params = load_params().model_dump()
    trained = read_json(RESULTS / "train/metrics.json")
    measured = read_json(RESULTS / "evaluate/metrics.json")
    details = read_json(RESULTS / "evaluate/details.json")
    train_source = read_json(RESULTS / "train/provenance.json")
    per_prompt = pd.read_csv(RESULTS / "evaluate/per_prompt.csv")
    validations = pd.read_csv(RESULTS / "train/validations.csv")
    pictures = charts(
        pd.read_csv(RESULTS / "train/history.csv"),
        validations,
        details,
        read_json(STATISTICS),
    )
    evaluate_source = read_json(RESULTS / "evaluate/provenance.json")
    values = report_text(trained, measured, details, per_prompt) | {
        "params": params,
        "details": details,
        "per_prompt": per_prompt.to_dict("records"),
        "tokens": read_json(TOKENS),
        "template": read_json(RESULTS / "template/report.json"),
        "train_source": train_source,
        "evaluate_source": evaluate_source,
        "paper": compare_with_paper(
            params["verifier"]["source"], evaluate_source["parameters"], measured, details
        ),
        "charts": pictures,
    }
    with whole_folder(PLOTS) as folder:
        for name, picture in pictures.items():
            write_text(folder / f"{name}.svg", picture)
    write_text(MARKDOWN, render("report.md.jinja", **values))
    write_text(HTML, render("report.html.jinja", **values))
    checkpoint = params["export"]["checkpoint"]
    row = validations["validation_loss"].idxmin() if checkpoint == "best" else -1
    of_training = Trained(train_source, validations.iloc[row].to_dict())
    of_evaluation = Measured(evaluate_source, measured, details)
    for layout in LIBRARIES:
        text = card(
            layout, read_json(VERIFIER), params["verifier"]["license"], of_training, of_evaluation
        )
        write_text(EXPORT / layout / "README.md", text)
    cards = (EXPORT / layout / "README.md" for layout in LIBRARIES)
    say_written("write_report", started, MARKDOWN, HTML, *cards)


if __name__ == "__main__":
    run_stage(main, __doc__)
