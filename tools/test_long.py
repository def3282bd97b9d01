"""The long tests, in named parts that can be stopped and started again.

    python -m tools.test_long                  # every part
    python -m tools.test_long kills sampling   # some of them

Each test marked `long` runs in a process of its own. What passed is recorded in
benchmarks/results/test_long.json, which belongs to one commit without local changes: started
again on that commit, a test that passed is left out, and another commit starts a new record.
"""

import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from eagle.command_line import parser
from eagle.errors import InputError, one_clear_message
from eagle.files import read_json, write_json
from eagle.provenance import provenance

RECORD = Path("benchmarks/results/test_long.json")
# written by the tests themselves, and by `dvc repro`, which writes the hashes of measured times
WRITTEN = (
    RECORD, "benchmarks/results/verifiers.json", "docs/verifiers.md",
    "benchmarks/results/faults.json", "docs/reliability.md", "dvc.lock",
)  # fmt: skip
PARTS = {
    "kills": ["tests/integration/test_resume.py"],
    "faults": ["tests/faults"],
    "pipeline": ["tests/integration"],
    "sampling": ["tests/unit/decoding"],
    "units": ["tests/unit"],
    "lossless": ["tests/end_to_end/test_embedded_default.py"],
    "families": ["tests/end_to_end/test_every_family.py"],
    "image": ["tests/end_to_end/test_image.py"],
    "engines": ["tests/end_to_end"],
}
"""Files and folders of each part; a test belongs to the part that names the longest path to it. No
part should take more than 90 minutes on 2 cores: divide one that does."""


def main(arguments: list[str]) -> int:
    """Run what has not passed yet on this commit.

    Returns:
        The exit code: 0 when every test of the chosen parts has passed on this commit.

    Raises:
        InputError: there are local changes, or the commit changed while the tests ran.
    """
    options = parser("tools.test_long", __doc__)
    options.add_argument("part", nargs="*", help=f"of {', '.join(PARTS)}; none: all")
    chosen = options.parse_args(arguments).part or list(PARTS)
    if unknown := sorted(set(chosen) - set(PARTS)):
        raise InputError(f"{unknown[0]}: no such part; choose from {', '.join(PARTS)}")
    commit = clean_commit()
    tests = long_tests()
    passed = passed_before(commit)
    waiting = [test for part in chosen for test in tests[part] if test not in passed]
    for number, test in enumerate(waiting, start=1):
        started = time.monotonic()
        outcome = run(test)
        seconds = round(time.monotonic() - started)
        print(f"test_long {number}/{len(waiting)}: {outcome} {test} in {seconds} s", flush=True)
        if outcome == "passed":
            if clean_commit() != commit:
                raise InputError(f"{commit[:7]} is no longer checked out; start again")
            passed[test] = seconds
            write_record(commit, tests, passed)
    for part in chosen:
        seconds = sum(passed.get(test, 0) for test in tests[part])
        print(f"test_long: {part} took {seconds / 60:.0f} minutes")
    missing = {part: sum(test not in passed for test in tests[part]) for part in PARTS}
    left = ", ".join(f"{count} of {part}" for part, count in missing.items() if count)
    print(
        f"test_long: {len(passed)} tests passed on commit {commit[:7]}; "
        + (f"incomplete, missing {left}" if left else "complete")
        + f"; {RECORD}"
    )
    return int(any(missing[part] for part in chosen))


def clean_commit() -> str:
    """The commit checked out.

    Raises:
        InputError: a file differs from it that is not in WRITTEN.
    """
    written = [f":!{path}" for path in WRITTEN]
    changed = git("status", "--porcelain", "--", ".", *written).splitlines()
    if changed:
        raise InputError(
            f"{changed[0][3:]}: not committed (and {len(changed) - 1} more files); the record "
            "counts only what passed on one commit without local changes, so commit first. One "
            "test alone: python -m pytest -m long FILE"
        )
    return git("rev-parse", "HEAD").strip()


def long_tests() -> dict[str, list[str]]:
    """Names of all long tests by their part.

    Raises:
        InputError: pytest cannot collect them, or a test is in no part.
    """
    collected = pytest("--collect-only", "-m", "long", "tests")
    names = [line for line in collected.stdout.splitlines() if "::" in line]
    if collected.returncode or not names:
        raise InputError(f"pytest found no long tests:\n{collected.stdout[-4000:]}")
    tests: dict[str, list[str]] = {part: [] for part in PARTS}
    for name in names:
        file = Path(name.partition("::")[0])
        paths = {path: part for part, paths in PARTS.items() for path in paths}
        holding = [path for path in paths if file.is_relative_to(path)]
        if not holding:
            raise InputError(f"{name}: in no part; add its folder to PARTS in {__file__}")
        tests[paths[max(holding, key=len)]].append(name)
    return tests


def run(test: str) -> str:
    """Run one test; returns passed, FAILED or skipped. What a failed one printed is shown."""
    finished = pytest("-m", "long", test)
    if finished.returncode:
        print(finished.stdout[-4000:], file=sys.stderr)
        return "FAILED"
    closing = finished.stdout.splitlines()[-1]
    return "passed" if re.match("1 passed", closing) else "skipped"


def passed_before(commit: str) -> dict[str, int]:
    """Seconds of each test that the record says passed on this commit."""
    record = read_json(RECORD) if RECORD.is_file() else {"commit": None}
    if record["commit"] != commit:
        return {}
    return {test: seconds for part in record["parts"].values() for test, seconds in part.items()}


def write_record(commit: str, tests: dict[str, list[str]], passed: dict[str, int]) -> None:
    machine = provenance({}, {}, 0)
    content = {
        "commit": commit,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "packages": machine["packages"],
        "hardware": machine["hardware"],
        "missing": [test for names in tests.values() for test in names if test not in passed],
        "parts": {
            part: {test: passed[test] for test in names if test in passed}
            for part, names in tests.items()
        },
    }
    write_json(RECORD, content)


def pytest(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pytest", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    with one_clear_message():
        sys.exit(main(sys.argv[1:]))
