"""Training that is killed, terminated or damaged ends in the weights of a run that was not."""

import functools
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT
from tests.integration.test_commands import FLOAT32, own_shape, torchrun, train_here, tutorial_flags

UPDATES = 200


@pytest.fixture(scope="module")
def flags(marked_verifier, messages_file):
    """The tutorial's command with a state after every update, so that most of a run is saving."""

    def make(cpdir: Path, *more: str) -> list[str]:
        return tutorial_flags(
            marked_verifier, messages_file, cpdir, *FLOAT32, "--epochs", "40", "--save", "1",
            "--learning-rate", "1e-3", "--num-training-steps", str(UPDATES), *more,
        )  # fmt: skip

    return make


@pytest.fixture(scope="module")
def uninterrupted(flags, tmp_path_factory):
    """Weights of a run that nothing interrupted."""

    @functools.cache
    def train(*more: str) -> bytes:
        home = tmp_path_factory.mktemp("whole")
        train_here(home, flags(home / "cp", *more))
        return weights_in(home / "cp")

    return train


def weights_in(cpdir: Path) -> bytes:
    (folder,) = cpdir.iterdir()
    return (folder / "last/model.safetensors").read_bytes()


def newest(cpdir: Path) -> int:
    """Updates in the newest state."""
    states = [path.name.split("-")[1] for path in cpdir.glob("*/state-*.pt")]
    return max(map(int, states), default=0)


def start(command: list[str]) -> subprocess.Popen:
    """Start training in a process of its own."""
    return subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(command: list[str]) -> str:
    """Train to the end in a process of its own, as after an interruption; returns its messages.

    In this process other code is loaded, and the hash of the code is part of the run's name.
    """
    process = start(command)
    printed = process.communicate(timeout=200)[1]
    assert process.returncode == 0, printed
    return printed


def start_until(update: int, command: list[str], cpdir: Path) -> subprocess.Popen:
    """Start training and come back when its newest state is that of `update` or later."""
    process = start(command)
    until = time.monotonic() + 120
    while newest(cpdir) < update and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.001)
    return process


@pytest.mark.parametrize(
    ("kills", "features"),
    [(3, "replay")] + [pytest.param(20, f, marks=pytest.mark.long) for f in ("replay", "cache")],
)
def test_sigkill_at_any_moment_changes_no_weight(
    flags, uninterrupted, marked_verifier, tmp_path, monkeypatch, kills, features
):
    """Killed at random moments and started again each time; before the last start a byte of the
    newest state is flipped, which costs that one state."""
    monkeypatch.setenv("EAGLE_CACHE", str(tmp_path / "cache"))
    more = []  # the tutorial's command replays
    if features == "cache":  # with all that the default's training has
        more += ["--features", "cache", "--initialization", "last_layer", "--rollout-steps", "1"]
        more += ["--eagle-config-path", own_shape(marked_verifier, tmp_path)]
    cpdir = tmp_path / "cp"
    command = flags(cpdir, *more)
    generator = random.Random(kills)
    for update in sorted(generator.sample(range(1, UPDATES - 10), kills)):
        process = start_until(update, command, cpdir)
        time.sleep(generator.uniform(0, 0.02))
        process.kill()
        process.wait()
        assert process.returncode == -signal.SIGKILL
    path = max(cpdir.glob("*/state-*.pt"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    whole = newest(cpdir) - 1
    printed = finish(command)
    assert f"{path}: its SHA-256 begins with " in printed
    assert f"resumed at update {whole}" in printed
    assert weights_in(cpdir) == uninterrupted(*more)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_saves_within_a_step_and_is_named(flags, uninterrupted, tmp_path, number):
    cpdir = tmp_path / "cp"
    command = flags(cpdir, "--save", "1000")
    process = start(command)
    for line in process.stderr:
        if line.startswith("train: "):
            break
    time.sleep(0.5)
    process.send_signal(number)
    printed = process.stderr.read()
    assert process.wait() == 128 + number
    assert "Traceback" not in printed
    stopped = int(re.search(rf"ended by {number.name} after update (\d+)", printed)[1])
    assert 0 < stopped < UPDATES
    assert newest(cpdir) == stopped
    assert f"resumed at update {stopped}" in finish(command)
    assert weights_in(cpdir) == uninterrupted()


def test_sigterm_in_a_validation_leaves_it_for_the_next_start(flags, uninterrupted, tmp_path):
    """The validation is given up at once; started again, the run begins with it."""
    cpdir = tmp_path / "cp"
    command = flags(cpdir, "--validation-updates", "1")
    process = start(command)
    while newest(cpdir) < 3:
        time.sleep(0.001)
    process.terminate()
    printed = process.communicate(timeout=60)[1]
    assert process.returncode == 143
    assert newest(cpdir) == int(re.search(r"ended by SIGTERM after update (\d+)", printed)[1])
    finish(command)
    validations = (next(cpdir.iterdir()) / "validations.csv").read_text().splitlines()[1:]
    assert [int(row.split(",")[0]) for row in validations] == list(range(1, UPDATES + 1))
    assert weights_in(cpdir) == uninterrupted()


def with_path() -> dict[str, str]:
    """An environment in which `torchrun` is found."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def test_workers_end_with_their_torchrun_and_their_state_is_saved(flags, tmp_path):
    cpdir = tmp_path / "cp"
    two = ["--micro-batch-size", "2", "--num-training-steps", str(2 * UPDATES), "--save", "1000"]
    log = tmp_path / "log"
    with log.open("w") as file:
        launcher = subprocess.Popen(
            [*torchrun(2), *flags(cpdir, *two)], cwd=ROOT, env=with_path(), stderr=file
        )
    until = time.monotonic() + 120
    while "train: " not in log.read_text():
        assert time.monotonic() < until
        time.sleep(0.01)
    workers = psutil.Process(launcher.pid).children()
    assert len(workers) == 2
    time.sleep(0.2)
    launcher.kill()
    launcher.wait()
    assert psutil.wait_procs(workers, timeout=30)[1] == []
    assert log.read_text().count("torchrun has ended") >= 1
    stopped = int(re.search(r"ended by SIGTERM after update (\d+)", log.read_text())[1])
    assert 0 < stopped < UPDATES
    assert newest(cpdir) == stopped


def test_training_in_the_background_outlives_the_shell(flags, uninterrupted, tmp_path):
    cpdir = tmp_path / "cp"
    command = shlex.join([*torchrun(), *flags(cpdir)])
    (tmp_path / "log").touch()  # the shell, which writes to it, ends at once
    subprocess.run(
        ["sh", "-c", f"nohup {command} >> {tmp_path / 'log'} 2>&1 &"],
        cwd=ROOT, env=with_path(), check=True,
    )  # fmt: skip
    until = time.monotonic() + 200
    while "train: wrote" not in (tmp_path / "log").read_text():
        assert time.monotonic() < until, (tmp_path / "log").read_text()
        time.sleep(0.1)
    assert weights_in(cpdir) == uninterrupted()


@pytest.mark.long
@pytest.mark.parametrize("agents", [1, 2])
def test_the_agent_restarts_a_killed_worker_from_the_newest_state(flags, tmp_path, agents):
    """Two workers of one agent, or of one each that meet at an endpoint; one worker is killed."""

    def start_all(cpdir: Path) -> list[subprocess.Popen]:
        two = flags(cpdir, "--micro-batch-size", "2", "--num-training-steps", str(2 * UPDATES))
        command = [*torchrun(2, agents), "--max-restarts", "1", *two]
        return [
            subprocess.Popen(command, cwd=ROOT, env=with_path(), stderr=subprocess.PIPE, text=True)
            for _ in range(agents)
        ]

    def end(started: list[subprocess.Popen]) -> str:
        said = "".join(process.communicate(timeout=200)[1] for process in started)
        assert [process.returncode for process in started] == [0] * agents, said
        return said

    end(start_all(tmp_path / "whole"))
    cpdir = tmp_path / "cp"
    started = start_all(cpdir)
    until = time.monotonic() + 120
    while newest(cpdir) < 20:
        assert time.monotonic() < until
        time.sleep(0.01)
    psutil.Process(started[0].pid).children()[-1].kill()
    assert int(re.search(r"resumed at update (\d+)", end(started))[1]) >= 20
    assert weights_in(cpdir) == weights_in(tmp_path / "whole")
