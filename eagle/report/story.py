"""The report's sentences, and the figures at its head."""

import pandas as pd

from eagle.report.tables import bounds, date_of

VERDICTS = {
    "faster": "Decoding is {speed} times as fast with this draft (95%: {interval})",
    "slower": "Decoding is slower with this draft: {speed} times as fast (95%: {interval})",
    "no difference shown": (
        "No difference in speed is shown: decoding is {speed} times as fast with this draft, and "
        "the 95% interval ({interval}) holds 1"
    ),
    "timing fault": (
        "The timing is at fault and gives no result: a draft-and-verify step cannot take less time "
        "than a vanilla step. Measure again with nothing else running, on longer texts"
    ),
}
"""By `details["verdict"]` (eagle/evaluation/verdict.py)."""


def verdict_line(measured: dict, details: dict) -> str:
    """The result in one line.

    Args:
        measured, details: results/evaluate/metrics.json and details.json.
    """
    said = VERDICTS[details["verdict"]].format(
        speed=f"{details['measured_speedup']:.2f}", interval=bounds(details["speedup_95"])
    )
    if details["verdict"] == "no difference shown" and details["speedup_95"] is None:
        said = "No difference in speed is shown: a single prompt has no interval"
    if not measured["lossless"]:
        return f"{said}. The text is NOT the verifier's own: use nothing of this draft."
    return f"{said}. The text is the verifier's own."


def measured_text(verifier: dict, source: dict) -> str:
    """Of which verifier, when and where.

    Args:
        verifier: resources/verifier/manifest.json.
        source: the evaluation's provenance.
    """
    revision = f", revision {verifier['revision'][:12]}" if verifier["revision"] else ""
    return (
        f"Verifier: {verifier['source']}{revision}. Measured on {date_of(source)[:10]}, on "
        f"{machine_name(source['hardware'])}."
    )


def headline(measured: dict, details: dict) -> list[dict[str, str]]:
    """The figures at the head of the report: name, value, interval and meaning of each."""
    decoder, proof = details["decoder"]["name"], details["lossless"]
    (served,) = (details[name] for name in details if name.startswith("lossless_"))
    as_served = "drawn texts are not compared word for word"
    if details["temperature"] == 0:
        as_served = (
            f"as measured for speed: {served['identical']} of {served['prompts']} identical to "
            f"vanilla, {served['ties']} differ at a near-tie (logits within "
            f"{served['tie_is_within']:.2g})"
        )
    agreement = details["top1_agreement"]
    figures = [
        ("acceptance length τ", f"{measured['tau']:.2f}", bounds(details["tau_95"]),
         f"tokens a verify step yields with {decoder} at temperature {details['temperature']:g}; "
         f"{details['steps']:,} steps"),
        ("speed-up", "no result" if measured["speedup"] is None else f"{measured['speedup']:.2f}",
         bounds(details["speedup_95"]), "over vanilla decoding in the same run, prefill included"),
        ("tokens/s", f"{measured['tokens_per_second']:.1f}", "",
         f"vanilla: {details['vanilla_tokens_per_second']:.1f}"),
        ("break-even", f"{details['break_even_tau']:.2f}", "",
         "the τ at which a step's tokens pay for its time on this machine"),
        ("top-1 agreement", f"{measured['top1_agreement']:.3f}", bounds(agreement["wilson_95"]),
         f"with the verifier, at {agreement['accepted']:,} of {agreement['of']:,} positions of "
         "held-out conversations"),
        ("lossless", "yes" if measured["lossless"] else "NO", "",
         f"float32: {proof['identical']} of {proof['prompts']} texts identical to transformers' "
         f"generate, {proof['ties']} differ at a proven tie; {as_served}"),
    ]  # fmt: skip
    return [
        dict(zip(("name", "value", "interval", "meaning"), row, strict=True)) for row in figures
    ]


def speed_text(measured: dict, details: dict) -> str:
    """Why decoding is as fast as it is."""
    return (
        f"One draft-and-verify step takes as long as {details['break_even_tau']:.2f} vanilla steps "
        f"on this machine, so decoding breaks even at τ {details['break_even_tau']:.2f}; τ is "
        f"{measured['tau']:.2f}. Drafting takes {details['draft_share']:.0%} of the time after the "
        f"prefill; {details['verifier_calls_per_token']:.2f} verifier forwards come to a token, "
        "where vanilla decoding takes 1."
    )


def forecast_text(details: dict) -> str:
    """How the decoder was chosen."""
    return (
        "Which decoder pays was forecast before it was measured, from greedy replies to held-out "
        "prompts and from the time of steps on this machine; the most promising ones, which stand "
        "first, were timed anew. The first line was chosen; its measured speed-up is "
        f"{details['measured_over_forecast']:.2f} of the forecast one, prefill left out."
    )


def evaluation_text(details: dict, per_prompt: pd.DataFrame) -> str:
    """What was evaluated, and what the intervals and rates are."""
    return (
        f"{len(per_prompt)} prompts, {per_prompt['new_tokens'].sum():,} new tokens. Intervals are "
        "at 95%: of a rate Wilson's, of τ and speed-up the bootstrap over prompts, no narrower "
        "than Student's t; a single prompt has none. Acceptance by position comes from a chain of "
        f"five in float32 on {details['alpha_prompts']} of the prompts ({details['alpha_steps']:,} "
        f"steps, τ {details['alpha_tau']:.2f} ({bounds(details['alpha_tau_95'])})): α0 is the "
        "first drafted token, αn the next one given that n were accepted."
    )


def engine_chain_text(details: dict, hardware: dict) -> str:
    """What chain an engine should draft, and the τ to expect of it.

    Args:
        hardware: of the evaluation's provenance.
    """
    chain = details["engine_chain"]
    among = (
        "all tokens"
        if details["draft_vocabulary"] is None
        else f"the {details['draft_vocabulary']:,} most frequent tokens"
    )
    if chain["from"] == "forecast":
        return (
            f"A chain of {chain['length']} drafted tokens is the fastest one by the forecast on "
            f"{machine_name(hardware)}; its acceptance length τ is {chain['tau']:.2f} there "
            f"(greedy, drafted among {among}). On another machine another length may be: measure."
        )
    return (
        "No length of chain was forecast, because evaluate.decoder stated what to draft. A chain "
        f"of {chain['length']} has an acceptance length τ of {chain['tau']:.2f} by the acceptance "
        f"rates (drafted among {among}). Which length is fastest depends on the machine: measure."
    )


def machine_name(hardware: dict) -> str:
    """The GPUs, or the CPU with its cores."""
    return ", ".join(hardware["gpus"]) or f"{hardware['cpu']} with {hardware['cores']} cores"


def command_of(source: dict) -> str:
    """How to run it again.

    Args:
        source: the evaluation's provenance.
    """
    if source["git_commit"] is None:
        return "make repro"
    return f"git checkout {source['git_commit'][:12]} && make repro"


def before_the_command(source: dict) -> str:
    """What `command_of` does not bring back."""
    if source["git_dirty"]:
        return "To run it again, after putting back the changes that were not committed:"
    return "To run it again:"
