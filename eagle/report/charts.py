"""The report's charts: SVG that is readable without a network."""

import altair as alt
import pandas as pd
import vl_convert
from markupsafe import Markup


def charts(
    history: pd.DataFrame,
    validations: pd.DataFrame,
    metrics: dict,
    per_prompt: pd.DataFrame,
    statistics: dict,
) -> dict[str, Markup]:
    """All charts of the report as SVG, by name.

    Args:
        history: results/train/history.csv, one row an update.
        validations: results/train/validations.csv.
        metrics: results/evaluate/metrics.json.
        per_prompt: results/evaluate/per_prompt.csv.
        statistics: resources/tokens/statistics.json.
    """
    return {
        "lengths": _histogram(statistics["train"]["length"], "tokens of a conversation"),
        "shares": _histogram(statistics["train"]["masked_share"], "the assistant's share of them"),
        "loss": _loss_chart(history, validations),
        "top1": _top1_chart(history, validations),
        "acceptance": _acceptance_chart(metrics),
        "categories": _category_chart(per_prompt),
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


def _acceptance_chart(metrics: dict) -> Markup:
    rows = pd.DataFrame(
        {"position": name.replace("alpha_", "α"), "acceptance": rate}
        for name, rate in metrics.items()
        if name.startswith("alpha_") and rate is not None
    )
    bars = alt.Chart(rows).encode(
        x=alt.X("position:N", title="position in the chain", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("acceptance:Q", title="conditional acceptance", scale=alt.Scale(domain=[0, 1])),
    )
    labels = bars.mark_text(dy=-6).encode(text=alt.Text("acceptance:Q", format=".2f"))
    return _svg(bars.mark_bar() + labels)


def _category_chart(per_prompt: pd.DataFrame) -> Markup:
    rows = per_prompt.groupby("category", as_index=False)["tau"].mean()
    bars = alt.Chart(rows).encode(
        x=alt.X("tau:Q", title="acceptance length τ (mean of the prompts)"),
        y=alt.Y("category:N", title=None, sort="-x", axis=alt.Axis(labelLimit=240)),
    )
    labels = bars.mark_text(align="left", dx=3).encode(text=alt.Text("tau:Q", format=".2f"))
    return _svg(bars.mark_bar() + labels)


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
