"""What an automatic vocabulary is; without torch, so that a plan can ask."""

ON_A_CPU = 8192
"""Tokens of an automatic vocabulary on a CPU, where the product with the head takes most of the
time of a small model (docs/experiments.md)."""


def automatic_size(asked: int | str | None, device: str) -> int | None:
    """The number of tokens of a vocabulary that was asked for; None: all of them.

    Args:
        asked: a number, None or "auto".
        device: cpu or cuda, where the products with the head run. A GPU has room for all tokens.
    """
    if asked != "auto":
        return asked
    return None if device == "cuda" else ON_A_CPU
