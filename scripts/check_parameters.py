"""Stage check_parameters: all of params.yaml, and the files it names, before any other stage.

DVC removes a stage's outputs before it runs the stage's command, so a mistake that the stage itself
finds has cost them already. All stages depend on this one's output, which is always the same: a
change of a parameter runs this stage, and after it only those that depend on that parameter.
"""

import time
from pathlib import Path

from eagle.checks import checked_params
from eagle.command_line import run_stage
from eagle.files import write_text
from eagle.tracking import say_written

CHECKED = Path("results/parameters.txt")


def main() -> None:
    started = time.monotonic()
    checked_params()
    write_text(CHECKED, "Every parameter in params.yaml can be used.\n")
    say_written("check_parameters", started, CHECKED)


if __name__ == "__main__":
    run_stage(main, __doc__)
