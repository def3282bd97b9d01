"""The report's text: its figures with their meaning, and its sentences."""

import pandas as pd

VERDICTS = {
    "faster": "Decoding is faster with this draft.",
    "slower": "Decoding is slower with this draft.",
    "no difference shown": "No difference in speed is shown: the interval of the speed-up holds 1.",
    "timing fault": (
        "The timing is at fault, and there is no result: a draft-and-verify step cannot take less "
        "time than a vanilla step. Measure again with nothing else running, on longer texts."
    ),
}
"""By `details["verdict"]` (eagle/evaluation/verdict.py)."""


def report_text(trained: dict, measured: dict, details: dict, per_prompt: pd.DataFrame) -> dict:
    """Values for the templates report.md.jinja and report.html.jinja, by name.

    Args:
        trained: results/train/metrics.json.
        measured, details, per_prompt: results/evaluate/metrics.json, details.json, per_prompt.csv.
    """
    decoder, proof = details["decoder"]["name"], details["lossless"]
    (served,) = (details[name] for name in details if name.startswith("lossless_"))
    as_served = "drawn texts are not compared word for word"
    if details["temperature"] == 0:
        as_served = (
            f"as measured for speed: {served['identical']} of {served['prompts']} identical to "
            f"vanilla, {served['ties']} differ at a near-tie (within {served['tie_is_within']:.2g})"
        )
    agreement = details["top1_agreement"]
    headline = [
        ("acceptance length τ", f"{measured['tau']:.2f} ({bounds(details['tau_95'])})",
         f"tokens a verify step yields with {decoder} at temperature {details['temperature']:g}; "
         f"{details['steps']:,} steps"),
        ("speed-up", "no result" if measured["speedup"] is None
         else f"{measured['speedup']:.2f} ({bounds(details['speedup_95'])})",
         "over vanilla decoding in the same run, prefill included"),
        ("tokens/s", f"{measured['tokens_per_second']:.1f}",
         f"vanilla: {details['vanilla_tokens_per_second']:.1f}"),
        ("lossless", "yes" if measured["lossless"] else "NO",
         f"float32: {proof['identical']} of {proof['prompts']} texts identical to transformers' "
         f"generate, {proof['ties']} differ at a proven tie; {as_served}"),
        ("top-1 agreement", f"{measured['top1_agreement']:.3f} ({bounds(agreement['wilson_95'])})",
         f"with the verifier, at {agreement['accepted']:,} of {agreement['of']:,} positions of "
         "held-out conversations"),
        ("validation loss", f"{trained['validation_loss']:.3f}",
         "soft cross-entropy a position, in nats"),
        ("training", f"{trained['train_tokens_per_second']:,.0f} tokens/s",
         f"masked tokens, features included; peak memory {trained['peak_memory_mb']:,} MB"),
    ]  # fmt: skip
    verdict = (
        f"{VERDICTS[details['verdict']]} One draft-and-verify step takes as long as "
        f"{details['break_even_tau']:.2f} vanilla steps on this machine, so decoding breaks even "
        f"at τ {details['break_even_tau']:.2f}; τ is {measured['tau']:.2f}. Drafting takes "
        f"{details['draft_share']:.0%} of the time after the prefill; "
        f"{details['verifier_calls_per_token']:.2f} verifier forwards come to a token, where "
        "vanilla decoding takes 1."
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
        f"{len(per_prompt)} prompts, {per_prompt['new_tokens'].sum():,} new tokens. Intervals are "
        "at 95%: of a rate Wilson's, of τ and speed-up the bootstrap over prompts, no narrower "
        "than Student's t; a single prompt has none. Acceptance by position comes from a chain of "
        f"five in float32 on {details['alpha_prompts']} of the prompts ({details['alpha_steps']:,} "
        f"steps, τ {details['alpha_tau']:.2f} ({bounds(details['alpha_tau_95'])})): α0 is the "
        "first drafted token, αn the next one given that n were accepted. "
        + engine_chain_text(details)
    )
    return {
        "headline": [dict(zip(("name", "value", "meaning"), row, strict=True)) for row in headline],
        "verdict": verdict,
        "chosen": chosen,
        "evaluated": evaluated,
        "alphas": [(f"α{n}", rate) for n, rate in enumerate(details["alpha"]) if rate["of"]],
        "depths": [
            (f"token {n} deep", rate)
            for n, rate in enumerate(details["acceptance_by_depth"], start=1)
            if rate["of"]
        ],
        "bounds": bounds,
        "groups": [
            (name, group)
            for table in ("by_category", "by_turn")
            for name, group in details[table].items()
        ],
        "trained": "The least validation loss decides which draft is exported as best.",
    }


def bounds(interval: list[float] | None) -> str:
    """An interval in words."""
    return "no interval" if interval is None else "{:.2f}–{:.2f}".format(*interval)


def engine_chain_text(details: dict) -> str:
    """A sentence on the chain that an engine should draft."""
    chain = details["engine_chain"]
    among = (
        "all tokens"
        if details["draft_vocabulary"] is None
        else f"the {details['draft_vocabulary']:,} most frequent tokens"
    )
    if chain["from"] == "forecast":
        return (
            f"For an engine, which drafts chains, a chain of {chain['length']} is the fastest by "
            f"the forecast on this machine, with τ {chain['tau']:.2f} on held-out prompts "
            f"(drafted among {among})."
        )
    return (
        f"For an engine, which drafts chains, no length was forecast (evaluate.decoder states its "
        f"shape); a chain of {chain['length']} has τ {chain['tau']:.2f} by these acceptance rates "
        f"(drafted among {among})."
    )
