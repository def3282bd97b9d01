"""The paper's own numbers (EAGLE-1, arXiv 2401.15077v3) beside the measured ones."""

from dataclasses import dataclass
from pathlib import Path

from eagle.files import read_json

PAPER = Path(__file__).parents[2] / "resources" / "paper.json"
QUESTIONS = 80
"""Of each bench; on MT-bench both turns."""


@dataclass
class Beside:
    """A row of the paper beside a measured one."""

    model: str
    rows: list[dict]
    """measure, paper, measured; a value that one side lacks is None."""
    differences: list[str]
    """What differs in the setup."""


def beside(verifier_source: str, settings: dict, metrics: dict, details: dict) -> Beside | None:
    """The paper's row for this verifier, bench and temperature; None where it has none.

    Args:
        verifier_source: as in params.yaml; models from the hub are known by name.
        settings: the section `evaluate` of params.yaml.
        metrics, details: what results/evaluate holds.
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
    # Vicuna's template puts its own in front
    system_prompt = "llama2" if "Llama-2" in model["hub"] else "none"
    return Beside(model["name"], rows, _differences(settings, details["decoder"], system_prompt))


def _differences(settings: dict, decoder: dict, system_prompt: str) -> list[str]:
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
