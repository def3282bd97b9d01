"""The model card of an exported draft: its verifier, how to serve it, and what it is worth."""

from pathlib import Path
from typing import NamedTuple

from eagle.rendering import render
from eagle.report.story import bounds

CARD = "card.md.jinja"
"""Template in resources/pages."""
LIBRARIES = {"official": "eagle", "vllm": "vllm", "sglang": "sglang"}
"""The library that loads each layout, as the hub names it."""


class Trained(NamedTuple):
    """What the training of the draft left."""

    provenance: dict
    """results/train/provenance.json, with parameters and inputs."""
    validation: dict[str, float]
    """Loss and top-1 of the exported draft."""


class Measured(NamedTuple):
    """What the stage `evaluate` wrote: provenance.json, metrics.json and details.json."""

    provenance: dict
    metrics: dict
    details: dict


def card(
    layout: str, verifier: dict, licence: str | None, trained: Trained, measured: Measured
) -> str:
    """README.md of one layout's folder, which begins with the metadata that the hub reads.

    It names no folder of this machine. The hub's `base_model` is stated for a verifier from the hub
    alone: where a folder or package has its weights from is not known, and a draft is of no use
    with a model that the verifier was made from.

    Args:
        verifier: resources/verifier/manifest.json: source, revision, and what the model's own card
            says (`eagle.verifier.model_card`).
        licence: of the verifier, as params.yaml states it; None: the model's own card is asked.
    """
    kind, _, name = verifier["source"].partition(":")
    return render(
        CARD,
        layout=layout,
        library=LIBRARIES[layout],
        source={"path": "a local folder", "package": f"the package {name}", "hub": name}[kind],
        title=name if kind == "hub" else verifier["title"] or Path(name).name,
        revision=verifier["revision"],
        hub_name=name if kind == "hub" else None,
        licence=licence or verifier["license"],
        licence_name=None if licence else verifier["license_name"],
        trained=trained.provenance,
        validation=trained.validation,
        evaluated=measured.provenance,
        metrics=measured.metrics,
        details=measured.details,
        bounds=bounds,
    )


def card_for_hub(text: str, name: str, measured: Measured) -> str:
    """A card with the results as metadata, which the hub shows beside it.

    Args:
        text: of the card, as `card` writes it.
        name: the draft's repository on the hub.
    """
    from huggingface_hub import EvalResult, ModelCard  # takes a third of a second

    complete = ModelCard(text)
    questions = measured.provenance["parameters"]["bench"]
    complete.data.model_name = name.partition("/")[2]
    complete.data.eval_results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=questions,
            dataset_name=questions,
            metric_type=key,
            metric_value=value,
        )
        for key, value in measured.metrics.items()
        if isinstance(value, float)
    ]
    return str(complete)
