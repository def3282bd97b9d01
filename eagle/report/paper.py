"""Comparison with the paper's own numbers (EAGLE-1, arXiv 2401.15077v3)."""

from dataclasses import dataclass
from pathlib import Path

from eagle.files import read_json

PAPER = Path(__file__).parents[2] / "resources" / "paper.json"
QUESTIONS = 80
"""The paper's number of questions from each set; both turns of those of MT-bench."""


@dataclass
class PaperComparison:
    model: str
    """The verifier's name in the paper."""
    rows: list[dict]
    """measure, paper, measured; a value that only one of them has is None in the other."""
    differences: list[str]
    """How the paper's setup differs."""


def compare_with_paper(
    verifier_source: str, settings: dict, metrics: dict, details: dict
) -> PaperComparison | None:
    """Compare with the paper's row for this verifier, these questions and this temperature.

    Args:
        verifier_source: as in params.yaml; the paper's verifiers are known by their hub names.
        settings: the section `evaluate` of params.yaml.
        metrics, details: results/evaluate/metrics.json and details.json.

    Returns:
        None where the paper has no such row.
    """
    model = next(
        (m for m in read_json(PAPER)["models"] if verifier_source == f"hub:{m['hub']}"), None
    )
    temperature = f"{settings['temperature']:g}"
    row = model and model["benches"].get(settings["bench"], {}).get(temperature)
    if not row:
        return None
    rows = [
        {
            "measure": "τ (mean of the prompts' new tokens a step)",
            "paper": row["tau"],
            "measured": details["other_tau"]["mean_new_over_steps"],
        },
        {
            "measure": "τ of a chain (here pooled, of five in float32)",
            "paper": row.get("chain_tau"),
            "measured": details["alpha_tau"],
        },
        {"measure": "speed-up", "paper": row["speedup"], "measured": metrics["speedup"]},
    ] + [
        {"measure": f"α{n}", "paper": alpha, "measured": metrics[f"alpha_{n}"]}
        for n, alpha in enumerate(row["alpha"])
    ]
    # Vicuna's template begins with a system prompt of its own
    system_prompt = "llama2" if "Llama-2" in model["hub"] else "none"
    differences = _differences(settings, details["decoder"], system_prompt)
    return PaperComparison(model["name"], rows, differences)


def _differences(settings: dict, decoder: dict, system_prompt: str) -> list[str]:
    """How the paper's setup differs, a phrase each.

    Args:
        system_prompt: of the official evaluation, as `evaluate.system_prompt` names it.
    """
    found = []
    if decoder["kind"] != "static_tree" or settings["static_tree"] != "mc_sim_7b_63":
        found.append(f"the paper drafts a static tree of 25 tokens, here {decoder['name']}")
    if settings["bench"] != "mt_bench":
        found.append(
            f"the paper asks {QUESTIONS} questions of its own choice, here "
            f"{settings['questions']} spread over the whole set"
        )
    elif settings["questions"] < QUESTIONS:
        found.append(f"{settings['questions']} of the {QUESTIONS} questions are asked")
    if settings["lossless_prompts"] < settings["questions"]:
        found.append(
            f"α and the chain's τ come from {settings['lossless_prompts']} prompts of "
            f"{settings['lossless_tokens']} tokens"
        )
    if settings["system_prompt"] != system_prompt:
        found.append(
            f"the system prompt is {settings['system_prompt']}, in the official evaluation "
            f"{system_prompt}"
        )
    if settings["dtype"] != "float16":
        found.append(f"{settings['dtype']} in place of float16")
    if settings["draft_vocabulary"] is not None:
        found.append(
            f"the {settings['draft_vocabulary']:,} most frequent tokens can be drafted, in the "
            "paper all"
        )
    if settings["top_p"] < 1 or settings["top_k"] is not None:
        found.append(f"tokens drawn with top-p {settings['top_p']:g}, top-k {settings['top_k']}")
    found.append("speed-up depends on the machine, and the paper does not name its own")
    found.append(
        f"replies of up to {settings['maximum_new_tokens']:,} tokens, in the official evaluation "
        "up to 1,024"
    )
    return found
