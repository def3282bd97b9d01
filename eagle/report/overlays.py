"""Charts of several runs: their curves over each other, and their differences with intervals."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from eagle.report.charts import PALETTE, Chart, drawn, smoothed, thinned, update_axis

COLOURS = [PALETTE[f"series-{n}"] for n in range(1, 7)]
DASHES = [[1, 0], [6, 3], [2, 2], [8, 3, 2, 3]]
"""Beyond the colours, lines differ in their dashes."""


def curves_chart(
    runs: dict[str, pd.DataFrame], column: str, title: str, axis: str, smooth: bool = False
) -> Chart:
    """A line a run over its updates.

    Args:
        runs: by name, a table each with the columns `update` and `column`.
    """
    names = list(runs)
    rows = pd.concat(
        thinned(
            pd.DataFrame(
                {
                    "update": table["update"],
                    "value": smoothed(table[column]) if smooth else table[column],
                }
            )
        ).assign(run=name)
        for name, table in runs.items()
    )
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(names))]
    dashes = [DASHES[i // len(COLOURS) % len(DASHES)] for i in range(len(names))]
    lines = alt.Chart(rows).encode(
        x=update_axis(),
        y=alt.Y("value:Q", title=axis, scale=alt.Scale(zero=False)),
        color=alt.Color(
            "run:N",
            title=None,
            scale=alt.Scale(domain=names, range=colours),
            legend=alt.Legend(columns=2, labelLimit=170),
        ),
        strokeDash=alt.StrokeDash("run:N", scale=alt.Scale(domain=names, range=dashes)),
    )
    return drawn(lines.mark_line(strokeWidth=1.5, point=not smooth), title)


def differences_chart(differences: Sequence[Any]) -> Chart:
    """Every run's difference from the first, with its interval and a line at 0.

    Args:
        differences: in one measure, as `eagle.evaluation.comparison.differences` gives them.
    """
    rows = pd.DataFrame(
        {
            "run": row.second,
            "difference": row.difference,
            # without an interval, a rule of no length
            "low": (row.interval or [row.difference])[0],
            "high": (row.interval or [row.difference])[-1],
        }
        for row in differences
    )
    base = alt.Chart(rows).encode(
        x=alt.X("difference:Q", title="difference, 95%", axis=alt.Axis(tickCount=5)),
        y=alt.Y("run:N", title=None, sort=None, axis=alt.Axis(labelLimit=180)),
    )
    zero = alt.Chart(pd.DataFrame({"difference": [0]})).mark_rule(strokeDash=[4, 3])
    marks = (
        zero.encode(x="difference:Q")
        + base.mark_rule().encode(x="low:Q", x2="high:Q")
        + base.mark_point(filled=True, opacity=1, size=60, color=PALETTE["series-1"])
    )
    title = f"Difference of {differences[0].measure} from {differences[0].first}"
    return drawn(marks, title, width=260, height=max(60, 26 * len(rows)))
