"""The losses of the updates that are done, as rows of the run's history."""

import math
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from eagle.errors import InputError
from eagle.training.distributed import sum_over_ranks
from eagle.training.schedule import Schedule
from eagle.training.updates import Update


class UpdateSums(NamedTuple):
    """Sums over the documents of an update: this rank's in tensors, or those of all ranks."""

    regression: Tensor | float
    classification: Tensor | float
    agreements: Tensor | float
    """These three over counted positions, with true features as the draft's input."""
    loss: Tensor | float
    """The loss that was minimized, already divided by the update's counted positions."""


class UpdateLosses(NamedTuple):
    """What an update leaves on the device. Several are read together, because the host waits for
    the device when it reads."""

    update: int
    sums: UpdateSums
    """Of this rank, each float64."""
    counted: int
    """Counted positions of the whole update, on all ranks."""
    gradient_norm: Tensor
    """Of the whole gradient, before it is clipped; the same on every rank."""


def history_rows(
    losses: list[UpdateLosses],
    updates: list[Update],
    lengths: list[int],
    schedule: Schedule,
    seconds: float,
) -> list[dict]:
    """Read the losses of updates; all ranks take part.

    Args:
        updates: all of the run.
        lengths: tokens of every training document.
        seconds: wall time of training so far.

    Returns:
        A row for each update: losses per counted position in nats, top-1 as a share.
    """
    sums = torch.stack([torch.stack(one.sums) for one in losses])  # [updates, 4]
    sum_over_ranks(sums)
    norms = torch.stack([one.gradient_norm for one in losses]).tolist()
    rows = []
    for one, values, norm in zip(losses, sums.tolist(), norms, strict=True):
        total, positions = UpdateSums(*values), max(1, one.counted)
        rows.append(
            {
                "update": one.update,
                "loss": total.loss,
                "regression": total.regression / positions,
                "classification": total.classification / positions,
                "top1": total.agreements / positions,
                "learning_rate": schedule.learning_rate(one.update),
                "gradient_norm": norm,
                "tokens": sum(lengths[document] for document in updates[one.update].documents),
                "masked_tokens": float(one.counted),
                "seconds": seconds,
            }
        )
    return rows


def check_finite(row: dict, update: Update, run_folder: Path) -> None:
    """Raises: InputError: loss or gradient norm of a row is NaN or infinite."""
    if not math.isfinite(row["loss"]) or not math.isfinite(row["gradient_norm"]):
        documents = ", ".join(map(str, update.documents))
        raise InputError(
            f"update {row['update']}: the loss is {row['loss']}, the gradient norm "
            f"{row['gradient_norm']}, on documents {documents} (numbered as in the token file); "
            "the draft is lost from there on. Lower the learning rate, or check those documents' "
            f"features. The states and the best draft before it stay in {run_folder}"
        )
