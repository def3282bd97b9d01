"""ShareGPT conversations as JSON lines of messages: the page's command.

python3 eagle/prepare_sharegpt_dataset.py --frac 1.0 --output resources/sharegpt.jsonl

What is rejected stands in resources/sharegpt.rejected.jsonl, with file, row and reason.
"""

import sys
import time
from pathlib import Path

if __name__ == "__main__":  # started as a file: its own folder would stand in front of packages
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from eagle.config import PrepareShareGptConfig, parse_command
from eagle.errors import one_clear_message
from eagle.sharegpt.prepare import prepare
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
        prepared.usable.write(command.output, prepared.chosen)
        refused = command.output.with_suffix(".rejected.jsonl")
        prepared.rejected.write(refused, range(len(prepared.rejected)))
        kept, rejected = len(prepared.chosen), len(prepared.rejected)
        say_written(
            "prepare_sharegpt",
            started,
            command.output,
            refused,
            note=f"{kept:,} conversations, {rejected:,} rejected",
        )
