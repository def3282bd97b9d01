"""The report's charts: SVG that is readable without a network, by light and by dark."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import altair as alt
import pandas as pd
import vl_convert
from markupsafe import Markup, escape

from eagle.rendering import TEMPLATES, words

PALETTE = {
    "paper": "#ffffff", "ink": "#1f2328", "muted": "#59636e", "line": "#d1d9e0", "bar": "#4f8fdb",
    "series-1": "#0860ca", "series-2": "#b35900", "series-3": "#116329", "series-4": "#8250df",
    "series-5": "#bf3989", "series-6": "#0b7285",
}  # fmt: skip
"""Colours by light; resources/pages/frame.html.jinja has the same names for both schemes."""
_ROLES = re.compile(r' (?:role|aria-[a-z]+)="[^"]*"')
"""Of marks and axes, which are nothing of their own in a picture with one title."""
_FONTS = "FONTCONFIG_FILE"
POINTS = 300
"""As many points as a line of this width can show."""


class Chart(NamedTuple):
    title: str
    """What the picture says, for who cannot see it."""
    svg: str
    """A file of its own, in the colours of PALETTE."""

    @property
    def on_page(self) -> Markup:
        """The picture within a page, in the page's own colours."""
        svg = self.svg
        for name, colour in PALETTE.items():
            svg = svg.replace(f'"{colour}"', f'"var(--{name})"')
        return Markup(svg)


def charts(
    history: pd.DataFrame,
    validations: pd.DataFrame,
    details: dict,
    statistics: dict,
) -> dict[str, Chart]:
    """All charts of the report, by name.

    Args:
        history: results/train/history.csv, one row an update.
        validations: results/train/validations.csv.
        details: results/evaluate/details.json.
        statistics: resources/tokens/statistics.json.
    """
    drawn = {
        "acceptance": _acceptance_chart(details["alpha"]),
        "categories": _category_chart(details["by_category"]),
        "loss": _curves(
            history, validations, "classification", "validation_loss",
            "Loss while training and in validation", "soft cross-entropy (nats a position)",
        ),
        "top1": _curves(
            history, validations, "top1", "validation_top1",
            "Top-1 agreement while training and in validation", "top-1 agreement",
        ),
        "learning_rate": _learning_rate_chart(history),
        "lengths": _histogram(
            statistics["train"]["length"],
            "Lengths of the training conversations", "tokens of a conversation",
        ),
        "shares": _histogram(
            statistics["train"]["masked_share"],
            "The assistant's share of their tokens", "the assistant's share of its tokens",
        ),
    }  # fmt: skip
    if details["forecasts"]:
        drawn["break_even"] = _break_even_chart(details["forecasts"])
    return drawn


def _curves(
    history: pd.DataFrame, validations: pd.DataFrame, trained: str, held_out: str,
    title: str, axis: str,
) -> Chart:  # fmt: skip
    smooth = smoothed(history[trained])
    rows = pd.concat(
        [
            thinned(pd.DataFrame({"update": history["update"], "value": smooth})).assign(
                split=f"training (median of {_window(history)} updates)"
            ),
            validations[["update"]].assign(value=validations[held_out], split="validation"),
        ]
    )
    chart = alt.Chart(rows).encode(
        x=update_axis(),
        y=alt.Y("value:Q", title=axis, scale=alt.Scale(zero=False)),
        color=alt.Color("split:N", title=None, scale=alt.Scale(range=_series())),
    )
    lines = chart.mark_line(strokeWidth=1.5)
    points = chart.transform_filter("datum.split == 'validation'").mark_point(
        filled=True, opacity=1, size=50
    )
    return drawn(lines + points, title)


def _learning_rate_chart(history: pd.DataFrame) -> Chart:
    rows = thinned(history[["update", "learning_rate"]])
    chart = alt.Chart(rows).encode(
        x=update_axis(),
        y=alt.Y("learning_rate:Q", title="learning rate", axis=alt.Axis(format="~e")),
    )
    return drawn(chart.mark_line(strokeWidth=1.5), "Learning rate of every update")


def update_axis() -> alt.X:
    return alt.X("update:Q", title="update", axis=alt.Axis(tickCount=5))


def _acceptance_chart(alpha: list[dict]) -> Chart:
    rows = pd.DataFrame(
        {
            "position": f"α{n}",
            "acceptance": rate["rate"],
            "low": rate["wilson_95"][0],
            "high": rate["wilson_95"][1],
            "label": f"{rate['rate']:.2f}",
            "counts": f"{rate['accepted']:,} of {rate['of']:,}",
        }
        for n, rate in enumerate(alpha)
        if rate["of"]
    )
    bars = alt.Chart(rows).encode(
        x=alt.X("position:N", title="position in the chain", axis=alt.Axis(labelAngle=0)),
        y=alt.Y(
            "acceptance:Q",
            title="accepted, given those before",
            scale=alt.Scale(domain=[0, 1]),
        ),
    )
    intervals = bars.mark_rule().encode(y="low:Q", y2="high:Q")
    labels = bars.mark_text(dy=-18, fontWeight="bold").encode(y="high:Q", text="label:N")
    counts = bars.mark_text(dy=-6, fontSize=10).encode(y="high:Q", text="counts:N")
    return drawn(
        bars.mark_bar() + intervals + labels + counts,
        "Acceptance by position, with 95% intervals and counts",
    )


def _category_chart(by_category: dict[str, dict]) -> Chart:
    rows = pd.DataFrame(
        {
            "category": words(name),
            "tau": group["tau"],
            # without an interval, a rule of no length
            "low": (group["tau_95"] or [group["tau"]])[0],
            "high": (group["tau_95"] or [group["tau"]])[-1],
            "label": f"{group['tau']:.2f} ({group['steps']:,} steps)",
        }
        for name, group in by_category.items()
    )
    bars = alt.Chart(rows).encode(
        x=alt.X(
            "tau:Q",
            title="acceptance length τ",
            scale=alt.Scale(zero=True),
            axis=alt.Axis(tickCount=4),
        ),
        y=alt.Y("category:N", title=None, sort="-x", axis=alt.Axis(labelLimit=180)),
    )
    intervals = bars.mark_rule().encode(x="low:Q", x2="high:Q")
    labels = bars.mark_text(align="left", dx=4, fontSize=10).encode(x="high:Q", text="label:N")
    return drawn(
        bars.mark_bar() + intervals + labels,
        "Acceptance length by category, with 95% intervals",
        height=26 * len(rows),
        width=170,
    )


def _break_even_chart(forecasts: list[dict]) -> Chart:
    yields, needs = "τ: tokens that a step yields", "τ at which decoding breaks even"
    rows = pd.DataFrame(
        {"length": int(words_of[-1]), "tau": row[key], "curve": curve}
        for row in forecasts
        if (words_of := row["decoder"].split())[:2] == ["chain", "of"]
        for key, curve in (("tau", yields), ("break_even_tau", needs))
    )
    chart = alt.Chart(rows).encode(
        x=alt.X("length:O", title="drafted tokens of a chain", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("tau:Q", title="tokens a step", scale=alt.Scale(zero=False)),
        color=alt.Color(
            "curve:N", title=None, scale=alt.Scale(domain=[yields, needs], range=_series())
        ),
    )
    return drawn(
        chart.mark_line(strokeWidth=2) + chart.mark_point(filled=True, opacity=1, size=50),
        "Break-even over draft length, by the forecast",
    )


def _histogram(distribution: dict, title: str, axis: str) -> Chart:
    bars = alt.Chart(pd.DataFrame(distribution["histogram"])).mark_bar(binSpacing=1)
    chart = bars.encode(
        x=alt.X("from:Q", bin="binned", title=axis, axis=alt.Axis(tickCount=6)),
        x2="to:Q",
        y=alt.Y("documents:Q", title="training conversations"),
    )
    return drawn(chart, title)


def smoothed(column: pd.Series) -> pd.Series:
    """The median of neighbours: updates of few conversations vary much, and one unusual
    conversation would set the scale."""
    return column.rolling(_window(column), min_periods=1, center=True).median()


def _window(rows: pd.Series | pd.DataFrame) -> int:
    return max(1, len(rows) // 40)


def thinned(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.iloc[:: max(1, len(rows) // POINTS)]


def _series() -> list[str]:
    return [PALETTE["series-1"], PALETTE["series-2"]]


def drawn(chart: alt.TopLevelMixin, title: str, width: int = 350, height: int = 220) -> Chart:
    ink, muted, line = PALETTE["ink"], PALETTE["muted"], PALETTE["line"]
    first = PALETTE["series-1"]
    styled = chart.properties(width=width, height=height, background=PALETTE["paper"]).configure(
        font="Helvetica, Arial, sans-serif",
        # room for the wider letters of another font
        padding={"left": 10, "right": 16, "top": 4, "bottom": 4},
        axis=alt.AxisConfig(
            labelColor=muted, titleColor=ink, labelFontSize=12, titleFontSize=12,
            titleFontWeight="normal", titlePadding=10, gridColor=line,
            domainColor=muted, tickColor=muted,
        ),
        legend=alt.LegendConfig(
            labelColor=ink, labelFontSize=12, orient="top", direction="vertical", labelLimit=360,
        ),
        view=alt.ViewConfig(stroke=None),
        bar=alt.BarConfig(color=PALETTE["bar"]),
        line=alt.LineConfig(color=first),
        rule=alt.MarkConfig(color=ink, strokeWidth=1.5),
        text=alt.MarkConfig(color=ink, fontSize=12),
    )  # fmt: skip
    with _fonts_of_the_engine():
        svg = vl_convert.vegalite_to_svg(styled.to_json())
    return Chart(title, _titled(svg, title))


@contextmanager
def _fonts_of_the_engine() -> Iterator[None]:
    """Let the engine find no font of the system: it looks for them once, when it draws first.

    It then measures text by its own copy of Liberation Sans, whose letters are as wide as
    Helvetica's and Arial's, and opens no file. Programs started from here have the system's fonts.
    """
    before = os.environ.get(_FONTS)
    os.environ[_FONTS] = str(TEMPLATES / "fonts.conf")
    try:
        yield
    finally:
        if before is None:
            del os.environ[_FONTS]
        else:
            os.environ[_FONTS] = before


def _titled(svg: str, title: str) -> str:
    head, end, rest = _ROLES.sub("", svg).partition(">")
    title = escape(title)
    return f'{head} role="img" aria-label="{title}"{end}<title>{title}</title>{rest}'
