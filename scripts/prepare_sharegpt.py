"""Stage prepare_sharegpt: write conversations for training and validation as JSON lines."""

import time
from pathlib import Path

from eagle.command_line import run_stage
from eagle.config import load_params
from eagle.files import whole_folder, write_json
from eagle.sharegpt.conversations import named_fields, split
from eagle.sharegpt.prepare import named_selection, prepare, statistics
from eagle.tracking import say_written

SHAREGPT = Path("resources/sharegpt")


def main() -> None:
    started = time.monotonic()
    params = load_params()
    sharegpt, machine = params.sharegpt, params.machine
    prepared = prepare(
        sharegpt.source,
        sharegpt.revision,
        sharegpt,
        SHAREGPT.parent,
        machine.data_processes,
        machine.progress_seconds,
    )
    train, validation = split(prepared.selected, sharegpt.validation_fraction)
    with whole_folder(SHAREGPT) as folder:
        prepared.usable.write(folder / "train.jsonl", train)
        prepared.usable.write(folder / "validation.jsonl", validation)
        prepared.rejected.write(folder / "rejected.jsonl", range(len(prepared.rejected)))
        counts = statistics(prepared, {"train": train, "validation": validation})
        write_json(folder / "statistics.json", counts)
    notes = [
        f"{len(train):,} to train, {len(validation):,} to validate, "
        f"{len(prepared.rejected):,} rejected"
    ]
    if left_out := named_selection(prepared, sharegpt):
        notes.append(left_out)
    if not_read := named_fields(prepared.fields_not_read):
        notes.append(not_read)
    say_written("prepare_sharegpt", started, SHAREGPT, note="; ".join(notes))


if __name__ == "__main__":
    run_stage(main, __doc__)
