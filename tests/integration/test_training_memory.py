"""The memory that training states before its first update, and what it then takes."""

import json
import re
import sys

import pytest

from tests.integration.test_commands import FLOAT32, own_shape, tutorial_flags
from tests.tiny import MARKED, make_verifier


def test_the_memory_stated_before_training_is_within_15_percent_of_its_peak(
    messages_file, tmp_path, run
):
    """At a size at which weights, optimizer and the state's copy are a third of the process."""
    verifier = make_verifier(tmp_path / "verifier", MARKED, hidden_size=512, intermediate_size=2048)
    flags = tutorial_flags(
        verifier, messages_file, tmp_path / "cp", *FLOAT32, "--save", "1",
        "--eagle-config-path", own_shape(verifier, tmp_path),
    )  # fmt: skip
    said = run(sys.executable, *flags).stderr
    stated = int(re.search(r"about (\d+) MB of memory at its peak \(verifier \d+, ", said)[1])
    (metrics,) = (tmp_path / "cp").glob("*/metrics.json")
    assert stated == pytest.approx(json.loads(metrics.read_text())["peak_memory_mb"], rel=0.15)
