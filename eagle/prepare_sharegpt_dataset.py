"""Write ShareGPT conversations as JSON lines of messages: a command of the upstream tutorial.

python3 eagle/prepare_sharegpt_dataset.py --frac 1.0 --output resources/sharegpt.jsonl

Rejected rows are written to resources/sharegpt.rejected.jsonl, with file, row and reason.
"""

import sys
import time
from pathlib import Path

if __name__ == "__main__":  # started as a file: modules are found from the root, not from eagle/
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from eagle.config import PrepareShareGptConfig, parse_command
from eagle.errors import one_clear_message
from eagle.sharegpt.conversations import named_fields
from eagle.sharegpt.prepare import named_selection, prepare
from eagle.tracking import say_written

if __name__ == "__main__":
    with one_clear_message():
        started = time.monotonic()
        command = parse_command(
            PrepareShareGptConfig, sys.argv[1:], "eagle/prepare_sharegpt_dataset.py"
        )
        prepared = prepare(
            command.source,
            command.revision,
            command,
            command.output.parent,
            command.processes,
            command.progress_seconds,
        )
        prepared.usable.write(command.output, prepared.selected)
        rejected_file = command.output.with_suffix(".rejected.jsonl")
        prepared.rejected.write(rejected_file, range(len(prepared.rejected)))
        notes = [f"{len(prepared.selected):,} conversations, {len(prepared.rejected):,} rejected"]
        if left_out := named_selection(prepared, command):
            notes.append(left_out)
        if not_read := named_fields(prepared.fields_not_read):
            notes.append(not_read)
        say_written(
            "prepare_sharegpt", started, command.output, rejected_file, note="; ".join(notes)
        )
