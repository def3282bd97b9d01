"""However many processes train, and however the verifier is held, the run is the same."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eagle.errors import InputError
from tests.conftest import ROOT
from tests.integration.test_commands import (
    FLOAT32,
    history,
    own_shape,
    torchrun,
    train_here,
    tutorial_flags,
)

UPDATES = 10


def flags_of(verifier: Path, data: Path, folder: Path, name: str, processes: int, *more: str):
    """The tutorial's command with 8 conversations an update, whatever the processes, and a draft of
    the verifier's own shape."""
    return tutorial_flags(
        verifier, data, folder / name, *FLOAT32,
        "--micro-batch-size", str(4 // processes), "--gradient-accumulation-steps", "2",
        "--learning-rate", "2e-3", "--num-warmup-steps", str(2 * processes),
        "--num-training-steps", str(UPDATES * processes),
        "--eagle-config-path", own_shape(verifier, folder),
        "--save", "1", "--save-minutes", "0.001",  # the processes decide it together
        *more,
    )  # fmt: skip


REPLAY = (
    "--features", "replay", "--replay-documents", "10", "--replay-passes", "2",
    "--initialization", "auto",
)  # fmt: skip
CACHE = ("--features", "cache", "--rollout-steps", "1")


@pytest.fixture(scope="module")
def train(marked_verifier, messages_file, tmp_path_factory):
    """Train; returns the curve of losses and validations."""
    folder = tmp_path_factory.mktemp("distributed")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "EAGLE_CACHE": str(folder / "cache")}

    def _train(name: str, processes: int, *more: str, agents: int = 1) -> list[tuple[float, float]]:
        """One process is this one. `agents` torchrun agents start several, and meet at an endpoint
        when they are several themselves."""
        flags = flags_of(marked_verifier, messages_file, folder, name, processes, *more)
        if processes == 1:
            train_here(folder, flags)
            return curve(folder / name)
        launcher = torchrun(processes, agents)
        started = [
            subprocess.Popen(
                [*launcher, *flags], cwd=ROOT, env=environment, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )
            for _ in range(agents)
        ]  # fmt: skip
        said = [process.communicate(timeout=240)[0] for process in started]
        assert [process.returncode for process in started] == [0] * agents, said
        assert "".join(said).count("train: wrote") == 1
        return curve(folder / name)

    return _train


@pytest.fixture(scope="module")
def kept(train):
    """One process with kept features and one rollout step."""
    return train("kept", 1, *CACHE)


@pytest.fixture(scope="module")
def replayed(train):
    """One process that passes twice over each buffer of ten conversations."""
    return train("replayed", 1, *REPLAY)


def curve(cpdir: Path) -> list[tuple[float, float]]:
    (folder,) = cpdir.iterdir()
    steps = [(float(row["loss"]), float(row["top1"])) for row in history(folder)]
    with (folder / "validations.csv").open() as file:
        validations = list(csv.DictReader(file))
    return steps + [(float(v["validation_loss"]), float(v["alpha_1"])) for v in validations]


def assert_same(one: list[tuple[float, float]], other: list[tuple[float, float]]) -> None:
    assert abs(one[0][0] - one[UPDATES - 1][0]) > 0.01  # the weights move
    for (loss, rate), (other_loss, other_rate) in zip(one, other, strict=True):
        assert other_loss == pytest.approx(loss, abs=1e-4)
        assert other_rate == pytest.approx(rate, abs=0.02)


@pytest.mark.long
def test_four_processes_have_the_curve_of_one(train, kept):
    assert_same(kept, train("four", 4, *CACHE))


def test_a_replayed_buffer_is_the_same_on_two_processes(train, replayed):
    assert_same(replayed, train("replayed-by-two", 2, *REPLAY))


@pytest.mark.long
def test_a_sharded_verifier_is_the_whole_one(train, kept):
    assert_same(kept, train("sharded", 2, *CACHE, "--verifier-sharding", "fsdp2"))


def test_a_sharded_verifier_fills_a_replay_buffer(train, replayed):
    assert_same(replayed, train("sharded-replay", 2, *REPLAY, "--verifier-sharding", "fsdp2"))


def test_two_agents_meet_at_a_rendezvous_endpoint(train, kept):
    """Two machines, as far as torchrun can tell: each has an agent and one process."""
    assert_same(kept, train("two-machines", 2, *CACHE, agents=2))


def test_sharding_over_one_process_is_refused(marked_verifier, messages_file, tmp_path):
    flags = tutorial_flags(marked_verifier, messages_file, tmp_path / "cp")
    with pytest.raises(InputError, match="there is one process to shard over"):
        train_here(tmp_path, [*flags, "--verifier-sharding", "fsdp2"])
