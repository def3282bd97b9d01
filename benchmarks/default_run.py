"""What the default run gives on this machine: the table at the head of the README.

    python -m benchmarks.default_run

Runs `dvc repro` in a fresh clone, features and all, and writes benchmarks/results/default_run.json.
"""

import subprocess
import time
from pathlib import Path

from eagle.command_line import parser
from eagle.errors import InputError, one_clear_message
from eagle.files import read_json, write_json
from eagle.provenance import provenance

RESULT = Path("benchmarks/results/default_run.json")
LEFT_BY_A_RUN = ("runs", ".cache/eagle", "results/evaluate", "models/draft")


def main() -> None:
    """Run, time and summarise.

    Raises:
        InputError: something of an earlier run would be used again, or the run failed.
    """
    parser("benchmarks.default_run", __doc__).parse_args()
    if left := [path for path in LEFT_BY_A_RUN if Path(path).exists()]:
        raise InputError(
            f"{left[0]}: left by an earlier run, whose work would not be done again; start in a "
            "fresh clone"
        )
    started = time.monotonic()
    if subprocess.run(["dvc", "repro", "--no-run-cache"]).returncode:
        raise InputError("dvc repro failed; its output says why")
    seconds = time.monotonic() - started
    write_json(RESULT, summary(seconds))
    print(f"wrote {RESULT}")


def summary(seconds: float) -> dict:
    """The figures of the README, from the results of a run that took so long."""
    details = read_json(Path("results/evaluate/details.json"))
    return {
        "minutes": round(seconds / 60, 1),
        "tau_95": details["tau_95"],
        "speedup_95": details["speedup_95"],
        "decoder": details["decoder"]["name"],
        "verdict": details["verdict"],
        **read_json(Path("results/evaluate/metrics.json")),
        **read_json(Path("results/train/metrics.json")),
        **provenance({}, {}, seconds),
    }


if __name__ == "__main__":
    with one_clear_message():
        main()
