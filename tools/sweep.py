"""Run a grid of parameters as DVC experiments, all from the same base.

    python -m tools.sweep train.learning_rate=1e-4,3e-4 train.seed=0,1,2     # six runs

Every run takes params.yaml, code and data as they are here, and of the parameters only its own. It
runs in a copy (`dvc exp run --temp`), so nothing is left behind in params.yaml. All combinations
are checked before the first is run. A run that has succeeded is not repeated: started again, with
more values or after an interruption, the sweep goes on with what is missing. What changes the base
(a commit, an edit of code or of params.yaml) begins a new sweep. The output of a run is in
runs/sweep/NAME.log. A run's name is short, the beginning of its values and a hash: the parameters
stand beside it in the table of all experiments of this commit, which `dvc exp show` prints at the
end. `dvc exp apply NAME` brings one back.

Reads params.yaml, the DAG, and what git and DVC know of the files: a file that neither of them has
would be missing in the copies, and is refused.
"""

import hashlib
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from eagle.checks import PARAMS, checked_params
from eagle.command_line import parser
from eagle.config import params_of
from eagle.errors import InputError, and_more, one_clear_message

LOGS = Path("runs/sweep")
SHOW = (
    "dvc exp show --no-pager --hide-workspace --only-changed"
    r" --keep 'Experiment|tau|speedup|top1|validation_loss' --drop '.*/|\w+(\.yaml)?$'"
)
"""The table of docs/comparing.md. DVC leaves out the last columns where a line has no room."""
LONGEST_LINE = "300"  # a log and a narrow terminal show all columns too
VALUES_IN_A_NAME = 6  # characters: two parameters and the metrics fit into 120 columns beside it

Run = Mapping[str, Any]
"""A value for every key of the grid."""


def grid(arguments: list[str]) -> list[Run]:
    """Every combination of KEY=VALUE,VALUE,… arguments, the last key's values next to each other.

    Raises:
        InputError: an argument is not of that form, a key is given twice, or params.yaml with the
            values of some combination cannot be used.
    """
    values: dict[str, list] = {}
    for argument in arguments:
        key, equals, listed = argument.partition("=")
        if not equals or not listed or key in values:
            raise InputError(
                f"{argument}: expected SECTION.KEY=VALUE,VALUE,… for each key once, such as "
                "train.seed=0,1,2"
            )
        values[key] = _values(argument, listed)
    combined = itertools.product(*values.values())
    runs = [dict(zip(values, combination, strict=True)) for combination in combined]
    for run in runs:
        _check(run)
    return runs


def _values(argument: str, listed: str) -> list:
    """Values as in a YAML list, and 1e-4 as the number that it is."""
    try:
        values = yaml.safe_load(f"[{listed}]")
    except yaml.YAMLError:
        raise InputError(f"{argument}: these are not values as in a YAML list") from None
    return [
        float(value)
        if isinstance(value, str) and re.fullmatch(r"[-+]?[\d.]+[eE][-+]?\d+", value)
        else value
        for value in values
    ]


def _check(run: Run) -> None:
    params = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    for key, value in run.items():
        section, _, field = key.partition(".")
        params.setdefault(section, {})[field] = value
    params_of(params, _words(run))


def name_of(run: Run, base: str) -> str:
    """The experiment's name: the beginning of its values, and a hash of the base and of all of
    its parameters, in whatever order they stand."""
    ordered = dict(sorted(run.items()))
    digest = hashlib.sha256(json.dumps([base, ordered]).encode()).hexdigest()
    values = re.sub(r"[^\w.,-]", "", ",".join(map(_short, ordered.values())))[:VALUES_IN_A_NAME]
    return f"{values.strip('.,-')}_{digest[:6]}"


def _short(value: Any) -> str:
    """The shorter form of a number: 1e-4 rather than 0.0001, and 0.5 rather than 5e-1."""
    plain = json.dumps(value)
    if not isinstance(value, float):
        return plain
    return min(plain, np.format_float_scientific(value, trim="-", exp_digits=1), key=len)


def base_of_the_sweep() -> str:
    """What every run begins from, beside the commit: the local changes. dvc.lock, which follows
    from the rest, is left out.

    Raises:
        InputError: a file that a stage reads is neither in git nor in DVC.
    """
    from dvc.repo import Repo  # takes a second

    stages = Repo(".").index.stages
    made = [Path(out.fs_path) for stage in stages for out in stage.outs]
    read = {Path(dep.fs_path) for stage in stages for dep in stage.deps}
    shipped = sorted(
        str(path) for path in read if not any(path.is_relative_to(out) for out in made)
    )
    untracked = [
        line
        for line in _output("git", "ls-files", "--others", "--", *shipped).splitlines()
        if "__pycache__" not in line
        and not any(Path(line).absolute().is_relative_to(out) for out in made)
    ]
    if untracked:
        raise InputError(
            f"{untracked[0]}{and_more(untracked, 'more files')}: neither in git nor in DVC, so the "
            "copy in which an experiment runs would lack it; `git add` it or, for data that must "
            'stay out of git, see "Private data" in docs/comparing.md'
        )
    return _output("git", "diff", "HEAD", "--", ".", ":!dvc.lock")


def start(run: Run, name: str) -> bool:
    """Run one experiment; returns whether it succeeded. What a failed one said is shown."""
    log = LOGS / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    changes = [word for key, value in run.items() for word in ("-S", f"{key}={json.dumps(value)}")]
    with log.open("w") as file:
        command = ["dvc", "exp", "run", "--temp", "--name", name, *changes]
        code = subprocess.call(command, stdout=file, stderr=subprocess.STDOUT)
    if code:
        said = log.read_text(errors="replace").splitlines()
        errors = [line for line in said if line.lower().startswith("error: ")]
        print("\n".join([*(errors or said[-5:]), f"sweep: {log} has all of it"]), file=sys.stderr)
    return code == 0


def sweep(arguments: list[str]) -> int:
    """Run what has not succeeded yet; returns the number of runs that failed."""
    checked_params()
    runs = grid(arguments)
    base = base_of_the_sweep()
    listed = _output("dvc", "exp", "list", "--rev", "HEAD", "--name-only")
    succeeded = set(listed.split())
    waiting = [(run, name) for run in runs if (name := name_of(run, base)) not in succeeded]
    print(f"sweep: {len(runs)} runs, {len(runs) - len(waiting)} of them have succeeded before")
    began, failed = time.monotonic(), 0
    for number, (run, name) in enumerate(waiting, start=1):
        print(f"sweep {number}/{len(waiting)}: {_words(run)}", end=" … ", flush=True)
        started = time.monotonic()
        good = start(run, name)
        failed += not good
        now = time.monotonic()
        left = (now - began) / number * (len(waiting) - number) / 60
        outcome = "done" if good else "FAILED"
        print(f"{outcome} in {now - started:.0f} s, {left:.0f} minutes left; {name}", flush=True)
    subprocess.call(shlex.split(SHOW), env=os.environ | {"COLUMNS": LONGEST_LINE})
    print(f"sweep: {len(runs) - failed} of {len(runs)} runs have succeeded. This table: {SHOW}")
    return failed


def _words(run: Run) -> str:
    return " ".join(f"{key}={json.dumps(value)}" for key, value in run.items())


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    options = parser("tools.sweep", __doc__)
    options.add_argument("values", nargs="+", metavar="KEY=VALUE,VALUE,…")
    with one_clear_message():
        sys.exit(min(1, sweep(options.parse_args().values)))
