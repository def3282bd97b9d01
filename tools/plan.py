"""What params.yaml will cost, before the first stage: tokens, updates, time, disk and memory.

    python -m tools.plan                                            # this machine, this data
    python -m tools.plan --gpu h100 --gpus 4 --conversations 68000

Reads params.yaml and the files that it names, and a sample of the conversations; writes nothing and
takes a few seconds. Every parameter and path of every stage is checked first, and all mistakes are
listed. Memory is that of one training process at its peak; a micro-step that does not fit comes
with what to change. Rates are measured here, or those of a GPU in benchmarks/results/gpu.json, and
the last lines say which. `make repro` prints this before it begins.
"""

import math
import sys

from eagle.checks import checked_params
from eagle.command_line import parser
from eagle.config import Params
from eagle.errors import InputError, one_clear_message
from eagle.training.memory import memory_by_part
from scripts.train import LARGEST_BATCH
from tools.device_rates import GPUS, Rates, rates_of
from tools.model_shape import shape_of
from tools.stage_costs import Costs, free_disk
from tools.token_estimate import estimate


def plan(params: Params, rates: Rates, conversations: int | None) -> tuple[list[str], bool]:
    """The plan's lines, and whether updates, disk and memory suffice.

    Raises:
        InputError: the verifier's sizes are not known, or the data cannot be read.
    """
    shape = shape_of(params.verifier)
    tokens = estimate(params, shape, conversations)
    costs = Costs(params, shape, tokens, rates)
    seconds, disk = costs.seconds(), costs.disk()
    too_few = _too_few_updates(costs)
    fits, memory = memory_lines(costs)
    fits = fits and not too_few
    lines = [
        f"verifier  {params.verifier.source}: {shape.weights / 1e9:,.2f} billion weights; the "
        f"draft has {costs.draft.draft_weights / 1e6:,.1f} million",
        f"tokens    {tokens.train:,} to train on in {tokens.train_documents:,} conversations, "
        f"{tokens.taught:,} the assistant's; {tokens.validation:,} to validate with ({tokens.how})",
        *_rejected(tokens.rejected, tokens.sampled),
        f"updates   {costs.updates:,} of {costs.batch} conversations, "
        f"{costs.epochs:,.1f} passes, {costs.validations} validations",
        *too_few,
        f"time      {_time(sum(seconds.values()))} in all: " + _parts(seconds, _time, least=1),
        f"          train: {_parts(costs.train_seconds(), _time, least=1)}",
        f"disk      {_bytes(sum(disk.values()))}: {_parts(disk, _bytes, least=1e6)}",
    ]
    if sum(disk.values()) > free_disk():
        fits = False
        lines.append(
            f"          TOO MUCH: {_bytes(free_disk())} are free; set EAGLE_CACHE to a larger "
            "disk, take fewer conversations (sharegpt.frac), or set train.features to replay"
        )
    lines += memory
    lines.append(f"rates     of {rates.name}: {rates.how}")
    return lines, fits


def _rejected(rejected, sampled: int) -> list[str]:
    if not rejected:
        return []
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in rejected.most_common())
    return [f"          of {sampled:,} sampled rows, {rejected.total():,} are rejected: {reasons}"]


def _too_few_updates(costs: Costs) -> list[str]:
    train = costs.params.train
    if train.warmup_updates < (train.max_updates or costs.updates):
        return []
    return [
        f"          TOO FEW for a warm-up of {train.warmup_updates:,} updates: lower "
        "train.warmup_updates or train.global_batch_size, or take more conversations or epochs"
    ]


def memory_lines(costs: Costs) -> tuple[bool, list[str]]:
    """Whether the largest micro-step fits, and the lines that say so."""
    machine, free = costs.params.machine, costs.rates.memory
    now = costs.micro_batch(machine.gradient_accumulation_steps)
    parts = memory_by_part(costs.sizes(now))
    lines = [
        f"memory    {_bytes(sum(parts.values()))} of {_bytes(free)} free, a process: "
        + _parts(parts, _bytes, least=1e6)
    ]
    share = costs.micro_batch(1)
    fitting = [
        batch
        for batch in range(1, share + 1)
        if share % batch == 0 and sum(memory_by_part(costs.sizes(batch)).values()) <= free
    ]
    if not fitting:
        lines.append(
            "          DOES NOT FIT, even with one conversation at a time: set "
            "machine.verifier_sharding to fsdp2 with more machine.processes, or lower "
            "tokens.maximum_model_length, train.softmax_vocabulary or train.replay_documents"
        )
        return False, lines
    most = max(fitting)
    if most < now:
        lines.append(
            f"          DOES NOT FIT: {now} conversations at a time; {most} fit: set "
            f"machine.gradient_accumulation_steps to {share // most}"
        )
        return False, lines
    lines.append(
        f"batch     {now} conversations at a time in each of {machine.processes} processes; of the "
        f"{share} that a process has in an update, {most} fit at a time"
    )
    return True, lines


def _parts(parts: dict[str, float], form, least: float) -> str:
    return ", ".join(f"{name} {form(size)}" for name, size in parts.items() if size >= least)


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:,.1f} h"


def _bytes(size: float) -> str:
    return f"{size / 1e6:,.0f} MB" if size < 1e9 else f"{size / 1e9:,.1f} GB"


def on(gpus: int, params: Params) -> Params:
    """The parameters for a number of GPUs, among which the batch must be divided."""
    batch = params.train.global_batch_size
    slots = gpus * params.machine.gradient_accumulation_steps
    if batch == "auto":
        batch = math.ceil(LARGEST_BATCH / slots) * slots
    elif batch % slots:
        larger = math.ceil(batch / slots) * slots
        print(
            f"plan: train.global_batch_size = {batch} cannot be divided among {gpus} GPUs; this "
            f"is the plan for {larger}"
        )
        batch = larger
    return params.model_copy(
        update={
            "machine": params.machine.model_copy(update={"processes": gpus}),
            "train": params.train.model_copy(update={"global_batch_size": batch}),
        }
    )


def main() -> int:
    """Returns: the exit code, 1 where updates, disk or memory do not suffice."""
    options = parser("tools.plan", __doc__)
    options.add_argument("--gpu", help=f"of {', '.join(GPUS)}; without it: this machine")
    options.add_argument("--gpus", type=int, help="training processes, one on each")
    options.add_argument("--conversations", type=int, help="such ones as those at hand")
    given = options.parse_args()
    if (given.gpus or 1) < 1 or (given.conversations or 1) < 1:
        raise InputError("--gpus and --conversations are 1 or more")
    params = checked_params()
    if given.gpus is not None:
        params = on(given.gpus, params)
    lines, fits = plan(params, rates_of(given.gpu), given.conversations)
    print("\n".join(lines), flush=True)
    return int(not fits)


if __name__ == "__main__":
    with one_clear_message():
        sys.exit(main())
