"""The report's charts: SVG that is readable without a network."""

import altair as alt
import pandas as pd
import vl_convert
from markupsafe import Markup


def charts(
    history: pd.DataFrame,
    validations: pd.DataFrame,
    details: dict,
    statistics: dict,
) -> dict[str, Markup]:
    """All charts of the report as SVG, by name.

    Args:
        history: results/train/history.csv, one row an update.
        validations: results/train/validations.csv.
        details: results/evaluate/details.json.
        statistics: resources/tokens/statistics.json.
    """
    return {
        "lengths": _histogram(statistics["train"]["length"], "tokens of a conversation"),
        "shares": _histogram(statistics["train"]["masked_share"], "the assistant's share of them"),
        "loss": _loss_chart(history, validations),
        "top1": _top1_chart(history, validations),
        "acceptance": _acceptance_chart(details["alpha"]),
        "categories": _category_chart(details["by_category"]),
    }


def _loss_chart(history: pd.DataFrame, validations: pd.DataFrame) -> Markup:
    trained = history[["update", "classification"]].rename(columns={"classification": "nats"})
    held_out = validations[["update", "validation_loss"]].rename(
        columns={"validation_loss": "nats"}
    )
    return _curves(trained, held_out, "nats", "soft cross-entropy (nats a position)")


def _top1_chart(history: pd.DataFrame, validations: pd.DataFrame) -> Markup:
    trained = history[["update", "top1"]]
    held_out = validations[["update", "validation_top1"]].rename(
        columns={"validation_top1": "top1"}
    )
    return _curves(trained, held_out, "top1", "top-1 agreement with the verifier")


def _curves(trained: pd.DataFrame, held_out: pd.DataFrame, column: str, title: str) -> Markup:
    # updates of few conversations vary much, and one unusual conversation would set the scale
    window = max(1, len(trained) // 40)
    smooth = trained[column].rolling(window, min_periods=1, center=True).median()
    trained = trained.assign(**{column: smooth}, split=f"training (median of {window} updates)")
    rows = pd.concat([trained, held_out.assign(split="validation")])
    chart = alt.Chart(rows).encode(
        x=alt.X("update:Q", title="update"),
        y=alt.Y(f"{column}:Q", title=title, scale=alt.Scale(zero=False)),
        color=alt.Color("split:N", title=None),
    )
    lines = chart.mark_line(strokeWidth=1.5)
    points = chart.transform_filter("datum.split == 'validation'").mark_point(filled=True)
    return _svg(lines + points)


def _acceptance_chart(alpha: list[dict]) -> Markup:
    rows = pd.DataFrame(
        {
            "position": f"α{n}",
            "acceptance": rate["rate"],
            "low": rate["wilson_95"][0],
            "high": rate["wilson_95"][1],
            "label": f"{rate['rate']:.2f} of {rate['of']:,}",
        }
        for n, rate in enumerate(alpha)
        if rate["of"]
    )
    bars = alt.Chart(rows).encode(
        x=alt.X("position:N", title="position in the chain", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("acceptance:Q", title="conditional acceptance", scale=alt.Scale(domain=[0, 1])),
    )
    intervals = bars.mark_rule().encode(y="low:Q", y2="high:Q")
    labels = bars.mark_text(dy=-6).encode(y="high:Q", text="label:N")
    return _svg(bars.mark_bar() + intervals + labels)


def _category_chart(by_category: dict[str, dict]) -> Markup:
    rows = pd.DataFrame(
        {
            "category": name.replace("_", " "),
            "tau": group["tau"],
            # without an interval, a rule of no length
            "low": (group["tau_95"] or [group["tau"]])[0],
            "high": (group["tau_95"] or [group["tau"]])[-1],
            "label": f"{group['tau']:.2f} ({group['steps']:,} steps)",
        }
        for name, group in by_category.items()
    )
    bars = alt.Chart(rows).encode(
        x=alt.X("tau:Q", title="acceptance length τ (pooled, as in the table)"),
        y=alt.Y("category:N", title=None, sort="-x", axis=alt.Axis(labelLimit=240)),
    )
    intervals = bars.mark_rule().encode(x="low:Q", x2="high:Q")
    labels = bars.mark_text(align="left", dx=3).encode(x="high:Q", text="label:N")
    return _svg(bars.mark_bar() + intervals + labels)


def _histogram(distribution: dict, title: str) -> Markup:
    bars = alt.Chart(pd.DataFrame(distribution["histogram"])).mark_bar(binSpacing=1)
    return _svg(
        bars.encode(
            x=alt.X("from:Q", bin="binned", title=title),
            x2="to:Q",
            y=alt.Y("documents:Q", title="training conversations"),
        )
    )


def _svg(chart: alt.TopLevelMixin) -> Markup:
    sized = chart.properties(width=420, height=220)
    return Markup(vl_convert.vegalite_to_svg(sized.to_json()))
