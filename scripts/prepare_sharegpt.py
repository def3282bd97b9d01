"""Stage prepare_sharegpt: conversations to train on and to validate with, as JSON lines."""

import time
from pathlib import Path

from eagle.config import load_params
from eagle.errors import one_clear_message
from eagle.files import whole_folder, write_json, write_json_lines
from eagle.sharegpt import prepare, split, statistics
from eagle.tracking import say_written

SHAREGPT = Path("resources/sharegpt")


def main() -> None:
    started = time.monotonic()
    params = load_params().sharegpt
    prepared = prepare(params.source, params.revision, params)
    train, validation = split(prepared.conversations, params.validation_fraction)
    with whole_folder(SHAREGPT) as folder:
        write_json_lines(folder / "train.jsonl", train)
        write_json_lines(folder / "validation.jsonl", validation)
        write_json_lines(folder / "rejected.jsonl", prepared.rejected)
        counts = statistics(prepared, {"train": train, "validation": validation})
        write_json(folder / "statistics.json", counts)
    note = (
        f"{len(train):,} to train, {len(validation):,} to validate, "
        f"{len(prepared.rejected):,} rejected"
    )
    say_written("prepare_sharegpt", started, SHAREGPT, note=note)


if __name__ == "__main__":
    with one_clear_message():
        main()
