"""The long form of the tests, one at a time, so that it can be stopped and started again.

    make proof

Each test marked `proof` runs in a process of its own; its outcome and time are appended to
benchmarks/results/proof.txt under a heading with date and commit. Started again on the same
commit, it leaves out what passed.
"""

import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

OUTCOMES = Path("benchmarks/results/proof.txt")


def main() -> int:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    collected = pytest("--collect-only", "-m", "proof", "tests")  # -q is in the settings
    tests = [line for line in collected.stdout.splitlines() if "::" in line]
    if collected.returncode or not tests:
        print(collected.stdout[-4000:], file=sys.stderr)
        return 1
    before = OUTCOMES.read_text() if OUTCOMES.is_file() else ""
    heading = f"# {datetime.now(UTC):%Y-%m-%d}, commit {commit}, {len(tests)} tests"
    OUTCOMES.parent.mkdir(parents=True, exist_ok=True)
    this_commit = before.partition(f"commit {commit},")[2].partition("\n#")[0]
    if not this_commit:
        with OUTCOMES.open("a") as file:
            file.write(heading + "\n")
    failed = 0
    for number, test in enumerate(tests, start=1):
        if f"passed {test} " in this_commit:
            continue
        started = time.monotonic()
        run = pytest("-m", "proof", test)
        outcome = "passed" if run.returncode == 0 else "FAILED"
        failed += run.returncode != 0
        line = f"{outcome} {test} in {time.monotonic() - started:.0f} s"
        print(f"proof {number}/{len(tests)}: {line}", flush=True)
        if run.returncode:
            print(run.stdout[-4000:], file=sys.stderr)
        with OUTCOMES.open("a") as file:
            file.write(line + "\n")
    print(f"proof: {failed} of {len(tests)} tests failed; {OUTCOMES}")
    return int(failed > 0)


def pytest(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pytest", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


if __name__ == "__main__":
    sys.exit(main())
