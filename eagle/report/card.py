"""The model card of an exported draft: its verifier, how to serve it, and what it is worth."""

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

    Args:
        verifier: resources/verifier/manifest.json: source, revision and file hashes.
        licence: of the verifier, as the hub names it; None if params.yaml does not state it.
    """
    kind, _, name = verifier["source"].partition(":")
    return render(
        CARD,
        layout=layout,
        library=LIBRARIES[layout],
        source=verifier["source"],
        revision=verifier["revision"],
        hub_name=name if kind == "hub" else None,
        licence=licence,
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
