"""The model card of an exported draft: its verifier, its training, and how to serve it."""

from eagle.rendering import render

CARD, RESULTS = "card.md.jinja", "card_results.md.jinja"
"""Templates in resources/pages."""


def card(
    layout: str,
    verifier: dict,
    licence: str | None,
    trained: dict,
    validation: dict[str, float],
) -> str:
    """README.md of one layout's folder, which begins with the metadata that the hub reads.

    It holds no times and no throughput, so that a repeated training gives the same card.

    Args:
        verifier: resources/verifier/manifest.json: source, revision and file hashes.
        licence: of the verifier, as the hub names it; None if params.yaml does not state it.
        trained: results/train/provenance.json, with parameters and inputs.
        validation: loss and top-1 of the exported draft.
    """
    kind, _, name = verifier["source"].partition(":")
    return render(
        CARD,
        layout=layout,
        source=verifier["source"],
        revision=verifier["revision"],
        hub_name=name if kind == "hub" else None,
        licence=licence,
        trained=trained,
        validation=validation,
    )


def card_with_results(text: str, name: str, evaluated: dict, metrics: dict, details: dict) -> str:
    """A card with the evaluation's results, as a section and as metadata for the hub.

    Args:
        text: of the card, as `card` writes it.
        name: the draft's repository on the hub.
        evaluated: results/evaluate/provenance.json.
        metrics, details: results/evaluate/metrics.json and details.json.
    """
    from huggingface_hub import EvalResult, ModelCard  # takes a third of a second

    complete = ModelCard(text)
    questions = evaluated["parameters"]["bench"]
    complete.data.model_name = name.partition("/")[2]
    complete.data.eval_results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=questions,
            dataset_name=questions,
            metric_type=key,
            metric_value=value,
        )
        for key, value in metrics.items()
        if isinstance(value, float)
    ]
    complete.text += render(RESULTS, evaluated=evaluated, metrics=metrics, details=details)
    return str(complete)
