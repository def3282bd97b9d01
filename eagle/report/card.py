"""The model card of an exported draft: its verifier, how to serve it, and what it is worth."""

from pathlib import Path
from typing import NamedTuple

from eagle.rendering import render
from eagle.report.story import engine_chain_text, machine_name
from eagle.report.tables import bounds

CARD = "card.md.jinja"
"""Template in resources/pages."""
LIBRARIES = {"official": "eagle", "vllm": "vllm", "sglang": "sglang"}
"""The library that loads each layout, as the hub names it."""
FOLDERS = {layout: f"models/export/{layout}" for layout in LIBRARIES}
"""The folder of each layout within the project."""


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
        title=title_of(verifier),
        revision=verifier["revision"],
        hub_name=name if kind == "hub" else None,
        licence=licence or verifier["license"],
        licence_name=None if licence else verifier["license_name"],
        serving=serving(verifier, measured.details),
        engine_chain=engine_chain_text(measured.details, measured.provenance["hardware"]),
        trained=trained.provenance,
        validation=trained.validation,
        evaluated=measured.provenance,
        machine=machine_name(measured.provenance["hardware"]),
        metrics=measured.metrics,
        details=measured.details,
        bounds=bounds,
    )


def title_of(verifier: dict) -> str:
    """What people call the verifier. Args: verifier: as of `card`."""
    kind, _, name = verifier["source"].partition(":")
    return name if kind == "hub" else verifier["title"] or Path(name).name


def serving(verifier: dict, details: dict) -> dict:
    """What the commands in resources/pages/serve_*.jinja name.

    Args:
        verifier: as of `card`.
        details: results/evaluate/details.json.
    """
    kind, _, name = verifier["source"].partition(":")
    hub = kind == "hub"
    return {
        "verifier": name if hub else "resources/verifier",
        "revision": verifier["revision"] if hub else None,
        "drafts": FOLDERS,
        "length": details["engine_chain"]["length"],
        "tau": details["engine_chain"]["tau"],
    }


def card_for_hub(text: str, name: str, layout: str, measured: Measured) -> str:
    """A card with the results as metadata, which the hub shows beside it, and with commands that
    name the repository.

    Args:
        text: of the card, as `card` writes it.
        name: the draft's repository on the hub.
    """
    from huggingface_hub import EvalResult, ModelCard  # takes a third of a second

    complete = ModelCard(text.replace(FOLDERS[layout], name))
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
