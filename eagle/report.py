"""The report's charts and sentences; the charts are SVG, readable without a network."""

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
    """The report's pictures as SVG, by name.

    Args:
        history: results/train/history.csv, a row an update.
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


def story(trained: dict, measured: dict, details: dict, per_prompt: pd.DataFrame) -> dict:
    """The report's figures with their meaning, and its sentences.

    Args:
        trained: results/train/metrics.json.
        measured, details, per_prompt: what results/evaluate holds.
    """
    decoder, proof = details["decoder"]["name"], details["lossless"]
    (served,) = (details[name] for name in details if name.startswith("lossless_"))
    as_served = "drawn texts are not compared word for word"
    if details["temperature"] == 0:
        as_served = (
            f"as measured for speed: {served['identical']} of {served['prompts']} identical to "
            f"vanilla, {served['ties']} differ at a near-tie (within {served['tie_is_within']:.2g})"
        )
    tau_low, tau_high = details["tau_95"]
    speed_low, speed_high = details["speedup_95"]
    pays = measured["speedup"] >= 1
    headline = [
        ("acceptance length τ", f"{measured['tau']:.2f} ({tau_low:.2f}–{tau_high:.2f})",
         f"tokens a verify step yields with {decoder} at temperature {details['temperature']:g}"),
        ("speed-up", f"{measured['speedup']:.2f} ({speed_low:.2f}–{speed_high:.2f})",
         "over vanilla decoding in the same run, prefill included"),
        ("tokens/s", f"{measured['tokens_per_second']:.1f}",
         f"vanilla: {details['vanilla_tokens_per_second']:.1f}"),
        ("lossless", "yes" if measured["lossless"] else "NO",
         f"float32: {proof['identical']} of {proof['prompts']} texts identical to transformers' "
         f"generate, {proof['ties']} differ at a proven tie; {as_served}"),
        ("top-1 agreement", f"{measured['top1_agreement']:.3f}",
         "with the verifier, on held-out conversations"),
        ("validation loss", f"{trained['validation_loss']:.3f}",
         "soft cross-entropy a position, in nats"),
        ("training", f"{trained['train_tokens_per_second']:,.0f} tokens/s",
         f"masked tokens, features included; peak memory {trained['peak_memory_mb']:,} MB"),
    ]  # fmt: skip
    verdict = (
        f"One draft-and-verify step takes as long as {details['break_even_tau']:.2f} vanilla steps "
        f"on this machine, so τ {measured['tau']:.2f} makes decoding "
        f"{'faster' if pays else 'slower'}. Drafting takes {details['draft_share']:.0%} of the "
        f"time after the prefill; {details['verifier_calls_per_token']:.2f} verifier forwards "
        "come to a token, where vanilla decoding takes 1."
    )
    chosen = ""
    if details["forecasts"]:
        chosen = (
            "Which decoder pays was forecast before it was measured, from greedy replies to "
            "held-out prompts and from the time of steps on this machine; the most promising "
            "ones, which stand first, were timed anew. The first line was chosen; its "
            f"measured speed-up is {details['measured_over_forecast']:.2f} of the "
            "forecast one, prefill left out."
        )
    evaluated = (
        f"{len(per_prompt)} prompts, {per_prompt['new_tokens'].sum():,} new tokens; intervals are "
        "95% bootstrap over prompts. Acceptance by position comes from a chain of five in "
        f"float32 ({details['alpha_steps']} steps, τ {details['alpha_tau']:.2f}): α0 is the first "
        "drafted token, αn the next one given that n were accepted."
    )
    return {
        "headline": [dict(zip(("name", "value", "meaning"), row, strict=True)) for row in headline],
        "verdict": verdict,
        "chosen": chosen,
        "evaluated": evaluated,
        "alphas": [
            (f"α{n}", measured[f"alpha_{n}"], interval)
            for n, interval in enumerate(details["alpha_95"])
            if interval is not None
        ],
        "depths": [rate for rate in details["acceptance_by_depth"] if rate is not None],
        "groups": [
            (name, group)
            for table in ("by_category", "by_turn")
            for name, group in details[table].items()
        ],
        "trained": "The least validation loss decides which draft is exported as best.",
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
    # an update of few conversations is noisy, and one odd conversation would set the scale
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
        {"position": f"α{n}", "acceptance": metrics[f"alpha_{n}"]}
        for n in range(5)
        if metrics[f"alpha_{n}"] is not None
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
