"""Compare runs on one page: paired differences, seeds in groups, curves, and what differs.

    python -m tools.compare seed-0 seed-1 seed-2
    python -m tools.compare results results/imported/NAME ../other-checkout

Each argument is a folder (of a project, of results, or one that tools/measure_draft.py wrote), or
the name of an experiment (`dvc exp run -n NAME`), a branch or a commit, whose results are taken.
Nothing is measured here. All runs are compared with the first one, prompt by prompt: what makes a
prompt easy for both cancels. An interval that holds 0 shows no difference. Runs that differ in
their seed alone are a group, with mean and standard deviation. The differences are printed, and
runs/compare.html has everything.
"""

import json
from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import pandas as pd
from rich.console import Console
from rich.table import Table as Printed

from eagle.command_line import parser
from eagle.errors import InputError, one_clear_message
from eagle.evaluation.comparison import Difference, Evaluated, differences
from eagle.files import write_text
from eagle.rendering import render
from eagle.report.overlays import curves_chart, differences_chart
from eagle.report.tables import Table, bounds

PAGE = Path("runs/compare.html")
RESULTS = Path("results")
Texts = Callable[[str], str | None]
"""The text of a file by its path below results; None where there is none."""
SEEDS = ("train.seed", "evaluate.seed")


class Run(NamedTuple):
    """What is on record of a run."""

    name: str
    evaluated: Evaluated
    metrics: dict
    """results/evaluate/metrics.json, and results/train/metrics.json where there is one."""
    details: dict
    parameters: dict[str, object]
    """Of training and evaluation, by stage.key, and the hashes of their inputs."""
    history: pd.DataFrame | None
    """None: a draft that was trained elsewhere."""
    validations: pd.DataFrame | None


def read_run(name: str) -> Run:
    """The results of one run.

    Args:
        name: a folder, or a revision that DVC knows.

    Raises:
        InputError: neither has results.
    """
    texts = _of_folder(Path(name)) if Path(name).is_dir() else _of_revision(name)
    files = ("per_prompt.csv", "provenance.json", "metrics.json", "details.json")
    per_prompt, *others = (texts(f"evaluate/{file}") for file in files)
    if per_prompt is None or None in others:
        raise InputError(
            f"{name}: neither a folder of results nor an experiment or commit with "
            f"{RESULTS}/evaluate; `dvc exp show` lists experiments"
        )
    provenance, metrics, details = map(json.loads, others)
    parameters = _parameters("evaluate", provenance, ("bench", "verifier"))
    history = validations = None
    if source := texts("train/provenance.json"):
        metrics = json.loads(texts("train/metrics.json")) | metrics
        parameters |= _parameters("train", json.loads(source), ("data", "draft_config"))
        history, validations = (
            pd.read_csv(StringIO(texts(f"train/{file}.csv"))) for file in ("history", "validations")
        )
    evaluated = Evaluated(name, pd.read_csv(StringIO(per_prompt)), provenance)
    return Run(name, evaluated, metrics, details, parameters, history, validations)


def _of_folder(folder: Path) -> Texts:
    """results/evaluate and results/train of a folder."""
    places = (folder, folder / "evaluate", folder / RESULTS / "evaluate")
    found = next((path for path in places if (path / "per_prompt.csv").is_file()), folder)

    def text(file: str) -> str | None:
        stage, file = file.split("/")
        path = (found if stage == "evaluate" else found.parent / stage) / file
        return path.read_text(encoding="utf-8") if path.is_file() else None

    return text


def _of_revision(name: str) -> Texts:
    """The same of a commit; a revision that is none has no file either."""
    from dvc.api import DVCFileSystem  # takes a second
    from dvc.exceptions import DvcException

    files = DVCFileSystem(rev=name)

    def text(file: str) -> str | None:
        try:
            return files.read_text(str(RESULTS / file), encoding="utf-8")
        except (DvcException, FileNotFoundError):
            return None

    return text


def _parameters(stage: str, provenance: dict, inputs: Sequence[str]) -> dict[str, object]:
    found = {f"{stage}.{key}": value for key, value in provenance["parameters"].items()}
    hashes = provenance["inputs"]
    return found | {f"{stage}: {name}": hashes[name][:12] for name in inputs if name in hashes}


def print_differences(found: list[Difference]) -> None:
    """Print every difference from the first run."""
    printed = Printed("run", "measure", "difference", "95%", "says")
    for row in found:
        printed.add_row(
            row.second, row.measure, f"{row.difference:+.3f}", _signed(row.interval), said_by(row)
        )
    Console().print(printed)


def differences_table(rows: list[Difference]) -> Table:
    """Every run's difference from the first one in one measure."""
    return Table(
        f"{rows[0].measure}, against {rows[0].first} ({rows[0].value_first:.3f})",
        ["run", "says", "difference", "95%", "value", "prompts"],
        [
            [row.second, said_by(row), f"{row.difference:+.3f}", _signed(row.interval),
             f"{row.value_second:.3f}", str(row.prompts)]
            for row in rows
        ],
    )  # fmt: skip


def said_by(row: Difference) -> str:
    """What an interval says of a difference."""
    if row.interval is None:
        return "no interval"
    low, high = row.interval
    return "undecided" if low <= 0 <= high else "higher" if low > 0 else "lower"


def _signed(interval: list[float] | None) -> str:
    return "no interval" if interval is None else "{:+.3f} to {:+.3f}".format(*interval)


def runs_table(runs: Sequence[Run]) -> Table:
    def shown(value: float | None, form: str) -> str:
        return "–" if value is None else format(value, form)

    return Table(
        "Runs",
        ["run", "τ", "95%", "τ, chain of five", "speed-up", "95%", "lossless", "top-1",
         "validation loss"],
        [
            [run.name, f"{run.metrics['tau']:.2f}",
             bounds(run.details["tau_95"]), f"{run.details['alpha_tau']:.2f}",
             shown(run.metrics["speedup"], ".2f"), bounds(run.details["speedup_95"]),
             "yes" if run.metrics["lossless"] else "NO", f"{run.metrics['top1_agreement']:.3f}",
             shown(run.metrics.get("validation_loss"), ".3f")]
            for run in runs
        ],
    )  # fmt: skip


def decoders_table(runs: Sequence[Run]) -> Table:
    """What each run was measured with."""
    rows = [[run.name, run.details["decoder"]["name"]] for run in runs]
    return Table("Decoders", ["run", "decoder"], rows)


def parameters_table(runs: Sequence[Run]) -> Table:
    """A column for every parameter or input that is not the same in all runs that state it."""
    keys = dict.fromkeys(key for run in runs for key in run.parameters)
    differing = [
        key for key in keys if len({json.dumps(run.parameters.get(key)) for run in runs}) > 1
    ]
    return Table(
        "Parameters and inputs that differ",
        ["run", *differing],
        [
            [run.name, *(_as_text(run.parameters.get(key, "–")) for key in differing)]
            for run in runs
        ],
    )


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def groups_of(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs that differ in their seeds alone, together; in the order of the first of each."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        rest = {key: value for key, value in run.parameters.items() if key not in SEEDS}
        groups.setdefault(json.dumps(rest, sort_keys=True), []).append(run)
    return list(groups.values())


def groups_table(groups: Sequence[Sequence[Run]]) -> Table:
    """Mean and standard deviation of the groups of several seeds."""
    measures = {
        "τ": lambda run: run.metrics["tau"],
        "τ of a chain of five": lambda run: run.details["alpha_tau"],
        "speed-up": lambda run: run.details["measured_speedup"],
        "top-1": lambda run: run.metrics["top1_agreement"],
        "validation loss": lambda run: run.metrics.get("validation_loss"),
    }

    def spread(values: list[float | None]) -> str:
        return "–" if None in values else f"{mean(values):.3f} ± {stdev(values):.3f}"

    return Table(
        "Seeds of one recipe: mean ± standard deviation",
        ["seeds of", "runs", *measures],
        [
            [group[0].name, str(len(group)),
             *(spread([measure(run) for run in group]) for measure in measures.values())]
            for group in groups
            if len(group) > 1
        ],
    )  # fmt: skip


def page(runs: Sequence[Run], found: list[Difference]) -> str:
    """The page on all runs."""
    trained = {run.name: run for run in runs if run.history is not None}
    measures = dict.fromkeys(row.measure for row in found)
    by_measure = [[row for row in found if row.measure == measure] for measure in measures]
    curves = []
    axis = "soft cross-entropy (nats a position)"
    if any(len(run.validations) > 1 for run in trained.values()):
        tables = {name: run.validations for name, run in trained.items()}
        curves.append(curves_chart(tables, "validation_loss", "Validation loss", axis))
    if trained:
        tables = {name: run.history for name, run in trained.items()}
        curves.append(curves_chart(tables, "classification", "Training loss", axis, smooth=True))
    clear = sum(said_by(row) in ("higher", "lower") for row in found)
    groups = groups_of(runs)
    return render(
        "compare.html.jinja",
        names=[run.name for run in runs],
        verdict=f"{clear} of {len(found)} differences from {runs[0].name} are more than noise.",
        decoders_differ=len({json.dumps(run.details["decoder"]) for run in runs}) > 1,
        runs=runs_table(runs),
        decoders=decoders_table(runs),
        differences=[(differences_chart(rows), differences_table(rows)) for rows in by_measure],
        groups=groups_table(groups),
        parameters=parameters_table(runs),
        curves=curves,
    )


def main() -> None:
    options = parser("tools.compare", __doc__)
    options.add_argument("runs", nargs="+", help="folders of results, or names of experiments")
    names = options.parse_args().runs
    if len(set(names)) < max(2, len(names)):
        raise InputError(f"found {' '.join(names)}; name at least two runs, each once")
    runs = [read_run(name) for name in names]
    found = differences([run.evaluated for run in runs])
    print_differences(found)
    for row in groups_table(groups_of(runs)).rows:
        print(f"{row[1]} seeds of {row[0]}: τ {row[2]}, of a chain of five {row[3]}")
    PAGE.parent.mkdir(exist_ok=True)
    write_text(PAGE, page(runs, found))
    print(f"compare: wrote {PAGE}")


if __name__ == "__main__":
    with one_clear_message():
        main()
