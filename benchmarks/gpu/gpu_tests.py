"""The unit tests that need a GPU."""

import re
from collections import Counter
from pathlib import Path

from benchmarks.gpu.part import NotHere, Report
from benchmarks.gpu.scale import Scale

# In the files that have such tests (tests/conftest.py).
MARKS = r"mark\.gpu|on_both_devices"


class Counts:
    """A plugin of pytest that counts how tests ended."""

    def __init__(self):
        self.outcomes: Counter[str] = Counter()
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.outcome] += 1
            if report.failed:
                self.failed.append(report.nodeid)

    def pytest_collectreport(self, report) -> None:
        if report.failed:
            self.outcomes["failed"] += 1
            self.failed.append(report.nodeid)


def measure_tests(scale: Scale, report: Report) -> None:
    """Run the tests with the marker `gpu`, in this process; only files that have one are read.

    Raises:
        NotHere: pytest is not installed.
    """
    try:
        import pytest
    except ImportError:
        raise NotHere("pytest is not installed") from None
    files = [
        str(path)
        for path in sorted(Path("tests").rglob("test_*.py"))
        if re.search(MARKS, path.read_text(encoding="utf-8"))
    ]
    counts = Counts()
    code = pytest.main(["-m", "gpu", "-p", "no:cacheprovider", "-rs", *files], [counts])
    outcomes = {name: counts.outcomes[name] for name in ("passed", "failed", "skipped")}
    report(exit_code=int(code), failed_tests=counts.failed, **outcomes)
