"""Which drafted tokens the verifier lets stand."""

from torch import Tensor


def accept_greedy(drafted: Tensor, chosen: Tensor) -> int:
    """Number of drafted tokens accepted at temperature 0.

    Args:
        drafted: [k], the draft's tokens.
        chosen: [k + 1], the verifier's most likely token after the last verified token and after
            each drafted one. chosen[a], a the returned number, is the token that comes on top.

    A drafted token stands while it and all before it are what the verifier would have chosen, so
    the text is the verifier's own (Leviathan et al. 2023, arXiv 2211.17192, at temperature 0).
    """
    agrees = drafted == chosen[:-1]
    return int(agrees.long().cumprod(0).sum())
