"""Compare drafts that were evaluated on the same prompts: paired differences, with intervals.

    python -m tools.compare_drafts results/evaluate results/imported/NAME
    python -m tools.compare_drafts seed-0 seed-1 seed-2

Each argument is a folder that the stage `evaluate` or tools/measure_draft.py wrote, or the name of
an experiment (`dvc exp run -n NAME`), a branch or a commit, whose results/evaluate is taken.
Nothing is measured here. Which draft is better by chance alone, the intervals tell: one that holds
0 shows no difference.
"""

import json
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from statistics import mean, stdev

import pandas as pd
from rich.console import Console
from rich.table import Column, Table

from eagle.command_line import parser
from eagle.errors import InputError, one_clear_message
from eagle.evaluation.comparison import Difference, Evaluated, differences
from eagle.files import read_json

RESULTS = Path("results/evaluate")
FILES = ("per_prompt.csv", "provenance.json")


def read_evaluated(name: str) -> Evaluated:
    """The results of one draft.

    Args:
        name: a folder of results, or a revision that DVC knows.

    Raises:
        InputError: neither has results.
    """
    folder = Path(name)
    if folder.is_dir():
        provenance = read_json(folder / "provenance.json")
        return Evaluated(name, pd.read_csv(folder / "per_prompt.csv"), provenance)
    import dvc.api  # takes a second
    from dvc.exceptions import DvcException
    from scmrepo.exceptions import SCMError

    try:
        table, provenance = (dvc.api.read(str(RESULTS / file), rev=name) for file in FILES)
    except (DvcException, SCMError, FileNotFoundError) as error:
        raise InputError(
            f"{name}: neither a folder of results nor an experiment or commit with {RESULTS} "
            f"({' '.join(str(error).split())[:120]}); `dvc exp show` lists experiments"
        ) from None
    return Evaluated(name, pd.read_csv(StringIO(table)), json.loads(provenance))


def show(drafts: Sequence[Evaluated]) -> None:
    """Print the differences of all pairs; with three drafts or more, each measure's spread too.

    Raises:
        InputError: the drafts were not evaluated alike.
    """
    found = differences(drafts)
    table = Table(
        Column("measure", no_wrap=True), "first", "second", "values", "difference", "95%", "prompts"
    )
    for row in found:
        table.add_row(
            row.measure, row.first, row.second, f"{row.value_first:.3f}  {row.value_second:.3f}",
            f"{row.difference:+.3f}", _interval(row), str(row.prompts),
        )  # fmt: skip
    Console().print(table)
    if len(drafts) > 2:
        for measure, values in _values(found, drafts).items():
            print(
                f"{measure}: mean {mean(values):.3f}, standard deviation {stdev(values):.3f} of "
                f"{len(values)} drafts"
            )


def _interval(row: Difference) -> str:
    if row.interval is None:
        return "no interval"
    low, high = row.interval
    return f"{low:+.3f} to {high:+.3f}" + ("" if low <= 0 <= high else " *")


def _values(found: list[Difference], drafts: Sequence[Evaluated]) -> dict[str, list[float]]:
    """Each measure of every draft, from its pairs with the first one."""
    values: dict[str, list[float]] = {}
    for row in found:
        if row.first == drafts[0].name:
            values.setdefault(row.measure, [row.value_first]).append(row.value_second)
    return values


def main() -> None:
    options = parser("tools.compare_drafts", __doc__)
    options.add_argument("results", nargs="+", help="folders of results, or names of experiments")
    names = options.parse_args().results
    if len(set(names)) < 2:
        raise InputError(f"found {' '.join(names)}; name at least two different results")
    show([read_evaluated(name) for name in names])


if __name__ == "__main__":
    with one_clear_message():
        main()
