"""The model card of an exported draft: what it belongs to, where it comes from, how to serve it."""

from eagle.pages import render

PAGE = "card.md.jinja"


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
