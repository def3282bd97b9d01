"""The model card of an exported draft: what it belongs to, where it comes from, how to serve it."""

from eagle.rendering import render

PAGE, RESULTS = "card.md.jinja", "card_results.md.jinja"


def card(
    layout: str,
    verifier: dict,
    licence: str | None,
    trained: dict,
    validation: dict[str, float],
) -> str:
    """README.md of one layout's folder, with the hub's metadata at its head.

    Nothing in it changes when the same training is repeated: no times, no throughput.

    Args:
        verifier: resources/verifier/manifest.json: source, revision and file hashes.
        licence: of the verifier, as the hub names it; None when it is not stated.
        trained: results/train/provenance.json: parameters and inputs.
        validation: loss and top-1 of the exported draft.
    """
    kind, _, name = verifier["source"].partition(":")
    return render(
        PAGE,
        layout=layout,
        source=verifier["source"],
        revision=verifier["revision"],
        hub_name=name if kind == "hub" else None,
        licence=licence,
        trained=trained,
        validation=validation,
    )


def card_with_results(text: str, name: str, evaluated: dict, metrics: dict, details: dict) -> str:
    """A card with what evaluate measured, as a section and as the hub's model index.

    Args:
        text: what `card` made.
        name: the draft's repository on the hub.
        evaluated: results/evaluate/provenance.json.
        metrics, details: what results/evaluate holds.
    """
    from huggingface_hub import EvalResult, ModelCard  # a third of a second, for publishing only

    whole = ModelCard(text)
    bench = evaluated["parameters"]["bench"]
    whole.data.model_name = name.partition("/")[2]
    whole.data.eval_results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=bench,
            dataset_name=bench,
            metric_type=key,
            metric_value=value,
        )
        for key, value in metrics.items()
        if isinstance(value, float)
    ]
    whole.text += render(RESULTS, evaluated=evaluated, metrics=metrics, details=details)
    return str(whole)
