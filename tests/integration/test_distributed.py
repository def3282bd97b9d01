"""However many processes train, and however the verifier is held, the run is the same."""

import csv
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.integration.test_commands import FLOAT32, history, page_flags, torchrun

UPDATES = 10


@pytest.fixture
def train(run, marked_verifier, messages_file, tmp_path):
    """Train with 8 conversations an update; returns the curve of losses and validations."""

    def _train(name: str, processes: int, micro: int, *more: str) -> list[tuple[float, float]]:
        out = tmp_path / name
        flags = page_flags(
            marked_verifier, messages_file, tmp_path / "cp", *FLOAT32,
            "--micro-batch-size", str(micro), "--learning-rate", "2e-3",
            "--gradient-accumulation-steps", str(8 // (micro * processes)),
            "--num-warmup-steps", str(2 * processes),
            "--num-training-steps", str(UPDATES * processes), "--output", str(out), *more,
        )  # fmt: skip
        run(*torchrun(processes), *flags)
        return curve(out)

    return _train


def curve(folder: Path) -> list[tuple[float, float]]:
    steps = [(float(row["loss"]), float(row["top1"])) for row in history(folder)]
    with (folder / "validations.csv").open() as file:
        validations = list(csv.DictReader(file))
    return steps + [(float(v["validation_loss"]), float(v["alpha_1"])) for v in validations]


def assert_same(one: list[tuple[float, float]], other: list[tuple[float, float]]) -> None:
    assert one[0][0] - one[UPDATES - 1][0] > 0.01  # it learns something to compare
    for (loss, rate), (other_loss, other_rate) in zip(one, other, strict=True):
        assert other_loss == pytest.approx(loss, abs=1e-4)
        assert other_rate == pytest.approx(rate, abs=0.02)


def test_one_two_and_four_processes_have_the_same_curve(train):
    one = train("one", 1, 4, "--features", "cache", "--rollout-steps", "1")
    for name, processes, micro, features in (
        ("two", 2, 2, "cache"), ("two-replayed", 2, 1, "replay"), ("four", 4, 2, "replay")
    ):  # fmt: skip
        more = ("--features", features, "--rollout-steps", "1")
        assert_same(one, train(name, processes, micro, *more))


def test_a_replayed_buffer_is_the_same_on_any_number_of_processes(train):
    more = ("--features", "replay", "--replay-documents", "10", "--replay-passes", "2")
    assert_same(train("one", 1, 4, *more), train("two", 2, 2, *more))


@pytest.mark.parametrize("features", ["cache", "replay"])
def test_a_sharded_verifier_is_the_whole_one(train, features):
    more = ("--features", features)
    whole = train("whole", 2, 2, *more)
    assert_same(whole, train("sharded", 2, 2, *more, "--verifier-sharding", "fsdp2"))


def test_two_agents_meet_at_a_rendezvous_endpoint(train, marked_verifier, messages_file, tmp_path):
    """Two machines, as far as torchrun can tell: each has an agent and one process."""
    one = train("one", 1, 4)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out = tmp_path / "two-machines"
    flags = page_flags(
        marked_verifier, messages_file, tmp_path / "cp2", *FLOAT32,
        "--micro-batch-size", "4", "--gradient-accumulation-steps", "1",
        "--learning-rate", "2e-3", "--num-warmup-steps", "4",
        "--num-training-steps", str(2 * UPDATES), "--output", str(out),
    )  # fmt: skip
    command = [
        "torchrun", "--nnodes=2", "--nproc_per_node=1", "--rdzv-backend=c10d",
        f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=test", *flags,
    ]  # fmt: skip
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path), "EAGLE_CACHE": str(tmp_path / "cache"),
    }  # fmt: skip
    agents = [
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    said = [agent.communicate(timeout=200) for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], said
    assert len(re.findall(r"train: wrote", "".join(out for out, _ in said))) == 1
    assert_same(one, curve(out))


def test_sharding_over_one_process_is_refused(run, marked_verifier, messages_file, tmp_path):
    flags = page_flags(marked_verifier, messages_file, tmp_path / "cp")
    finished = run("python", *flags, "--verifier-sharding", "fsdp2", code=1)
    assert "there is one process to shard over" in finished.stderr
