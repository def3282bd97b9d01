"""Processes end with the one that started them, and never with a user's shell."""

import os
import shlex
import signal
import subprocess
import sys
import time

import pytest

from eagle.lifetime import POLL_SECONDS, ended_by
from tests.conftest import ROOT

# a launcher that is killed: it runs a command through a shell, and gives it a variable as DVC does
LAUNCHER = """
import os, subprocess, sys
command, *variables = sys.argv[1:]
subprocess.run(["sh", "-c", command], env=os.environ | {name: "train" for name in variables})
"""
STAGE = """
import sys, time
from eagle.command_line import run_stage
def main():
    print('waiting', flush=True)
    time.sleep(60)
sys.argv[0] = 'scripts/train.py'
run_stage(main, '')
"""
WAITING = "import time; print('waiting', flush=True); time.sleep({seconds}); print('finished')"


def launch(function: str, shell: str, seconds: float, *variables: str) -> subprocess.Popen:
    """A launcher and what it launched, which calls a function of eagle.lifetime and then waits."""
    program = f"from eagle.lifetime import *; {function}(); {WAITING.format(seconds=seconds)}"
    command = shell.format(f'{sys.executable} -c "{program}"')
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, command, *variables], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout.readline() == "waiting\n"
    return process


@pytest.mark.parametrize(
    ("function", "shell", "variable", "name"),
    [
        ("end_with_dvc", "exec {}", "DVC_STAGE", "dvc"),
        ("end_with_dvc", "{}; true", "DVC_STAGE", "dvc"),  # the shell stays between
        ("end_with_torchrun", "exec {}", "TORCHELASTIC_RUN_ID", "torchrun"),
    ],
)
def test_what_is_launched_ends_with_the_launcher(function, shell, variable, name):
    process = launch(function, shell, 60, variable)
    process.kill()
    began = time.monotonic()
    printed = process.communicate()[0]  # ends when all who could print have ended
    assert time.monotonic() - began < POLL_SECONDS + 5
    # a shell that stays says that the command was terminated
    assert printed.startswith(f"{name} has ended; what it started ends too\n")
    assert "finished" not in printed


def test_every_stage_ends_with_its_dvc():
    command = shlex.join(["exec", sys.executable, "-c", STAGE])
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, command, "DVC_STAGE"], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout.readline() == "waiting\n"
    process.kill()
    said = "dvc has ended; what it started ends too\ntrain: ended by SIGTERM\n"
    assert process.communicate()[0] == said


def test_a_signal_is_named_with_what_it_usually_means():
    assert ended_by(signal.SIGKILL).startswith("SIGKILL (most likely by the system")
    assert ended_by(signal.SIGBUS).startswith("SIGBUS (a file in memory cannot be read")
    assert ended_by(signal.SIGSEGV) == "SIGSEGV"


@pytest.mark.parametrize("function", ["end_with_dvc", "end_with_torchrun"])
def test_what_a_users_shell_started_outlives_it(function, monkeypatch):
    for variable in ("DVC_STAGE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(variable, raising=False)
    process = launch(function, "{}; true", 3 * POLL_SECONDS)
    process.kill()
    assert process.communicate()[0] == "finished\n"


def test_a_module_runs_as_long_as_its_parent_lives():
    command = [sys.executable, "-m", "eagle.lifetime"]
    here = subprocess.run(
        [*command, str(os.getpid()), "json.tool", "--indent", "1"], cwd=ROOT, text=True,
        input="[17]", capture_output=True, check=True,
    )  # fmt: skip
    assert here.stdout == "[\n 17\n]\n"
    of_another = subprocess.run([*command, "1", "http.server", "0"], cwd=ROOT, timeout=30)
    assert of_another.returncode == -signal.SIGTERM
