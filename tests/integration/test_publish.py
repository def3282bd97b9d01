"""What is published is the draft of the run that was asked for, whatever was killed before."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from eagle.config import load_params
from eagle.errors import InputError
from scripts.train import check_run, run_of, train_config
from tests.integration.conftest import Project
from tests.tiny import accept

SCRIPT = (sys.executable, "-m", "scripts.train")
LONG = {"epochs": 500, "validation_updates": 10**6}  # no state but those that an end writes
SHORT = {"epochs": 2, "learning_rate": 0.002}


@pytest.fixture
def project(project: Project) -> Project:
    """The miniature without the run of its draft."""
    shutil.rmtree(project.folder / "runs")
    return project


class Start:
    """A command in the background, and all that it printed."""

    def __init__(self, project: Project, *command: str):
        self.log = project.folder.parent / "start.log"
        clean = {name: value for name, value in os.environ.items() if "CLEARML" not in name}
        path = f"{Path(sys.executable).parent}:{clean['PATH']}"
        cache = str(project.folder.parent / "cache")
        with self.log.open("w") as file:
            self.process = subprocess.Popen(
                command, cwd=project.folder, stdout=file, stderr=file,
                env=clean | {"PATH": path, "EAGLE_CACHE": cache},
            )  # fmt: skip

    def wait_for(self, text: str) -> None:
        until = time.monotonic() + 120
        while text not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.005)

    def kill(self) -> str:
        """Kill the command, wait until all that it started has ended, and return the output."""
        started = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        self.process.wait()
        assert started
        assert psutil.wait_procs(started, timeout=30)[1] == []
        return self.log.read_text()


def weights(project: Project, name: str = "last") -> bytes:
    return (project.folder / "models/draft" / name / "model.safetensors").read_bytes()


def published(project: Project) -> dict:
    """The parameters in the published provenance."""
    source = json.loads((project.folder / "results/train/provenance.json").read_text())
    return source["parameters"]


def runs(project: Project) -> set[Path]:
    return {path.parent for path in project.folder.glob("runs/*/lock")}


def kill_in_training(project: Project, *command: str) -> int:
    """Start a long training and kill its command; returns the update at which it then ended."""
    project.set("machine", save_updates=10**6)
    project.set("train", **LONG)
    start = Start(project, *command)
    start.wait_for("updates, attention")
    time.sleep(0.5)
    stopped = int(re.search(r"ended by SIGTERM after update (\d+)", start.kill())[1])
    assert 0 < stopped < 2000
    return stopped


def test_training_ends_with_its_dvc_and_another_run_publishes_its_own(project: Project):
    rate = published(project)["learning_rate"]
    stopped = kill_in_training(project, "dvc", "repro", "train")
    (first,) = runs(project)

    project.set("train", **SHORT)
    output = project("dvc", "repro", "train")
    assert f"other parameters, data or code: {first.name}; this run does not go on" in output
    assert published(project)["learning_rate"] == 0.002
    assert published(project)["epochs"] == 2
    (second,) = runs(project) - {first}
    assert weights(project) == (second / "last/model.safetensors").read_bytes()

    project.set("train", **LONG | {"learning_rate": rate})
    assert f"resumed at update {stopped}" in project(*SCRIPT)
    assert published(project)["epochs"] == 500
    resumed = weights(project)
    shutil.rmtree(first)
    project(*SCRIPT)
    assert weights(project) == resumed


def test_training_ends_with_its_script_and_publishes_nothing(project: Project):
    before = weights(project)
    stopped = kill_in_training(project, *SCRIPT)
    (run,) = runs(project)
    assert [*run.glob("state-*")] == [*run.glob(f"state-*{stopped}-*")]
    assert weights(project) == before


def test_a_finished_run_whose_publication_was_killed_is_published_and_not_trained_again(
    project: Project,
):
    before = weights(project)
    project.set("train", **SHORT)
    start = Start(project, *SCRIPT)
    start.wait_for("train: wrote runs/")
    start.kill()
    assert weights(project) == before
    (run,) = runs(project)
    assert not list(project.folder.glob("*/.*.partial"))
    source = (run / "provenance.json").read_bytes()
    output = project("dvc", "repro", "train")
    assert f"train: {run.relative_to(project.folder)} has finished before" in output
    assert (project.folder / "results/train/provenance.json").read_bytes() == source
    for name in ("best", "last"):
        assert weights(project, name) == (run / name / "model.safetensors").read_bytes()
    # the published draft is a copy of its own
    (project.folder / "models/draft/best/config.json").unlink()
    project(*SCRIPT)
    assert (project.folder / "models/draft/best/config.json").is_file()


def test_a_run_of_other_parameters_is_refused_and_nothing_is_written(project: Project):
    before = weights(project)
    project.set("train", **SHORT)
    start = Start(project, *SCRIPT)
    start.wait_for("train: wrote runs/")
    start.kill()
    (run,) = runs(project)
    path = run / "provenance.json"
    source = json.loads(path.read_text())
    for section, key, expected in (
        ("parameters", "learning_rate", "learning_rate is other there, this start asked for 0.002"),
        ("inputs", "data", "its parameters and inputs are not those of the run in this folder"),
    ):
        path.write_text(json.dumps(source | {section: source[section] | {key: "other"}}))
        accept(run)
        output = project(*SCRIPT, code=1)
        (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
        assert f"runs/{run.name}/provenance.json: {expected}. Nothing was published" in line
        assert weights(project) == before


def test_a_second_start_of_a_run_is_refused_and_sigterm_ends_the_first(project: Project):
    before = weights(project)
    project.set("train", **LONG)
    first = Start(project, *SCRIPT)
    first.wait_for("updates, attention")
    (run,) = runs(project)
    output = project(*SCRIPT, code=1)
    (line, _) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert f"runs/{run.name}: this run is being trained by process " in line
    assert f" on {socket.gethostname()}" in line
    first.process.terminate()
    assert first.process.wait() == 128 + signal.SIGTERM
    assert "ended by SIGTERM after update" in first.log.read_text()
    assert weights(project) == before


def test_an_incomplete_run_is_refused(project: Project, monkeypatch):
    run = project.folder / "runs/incomplete"
    (run / "best").mkdir(parents=True)
    monkeypatch.chdir(project.folder)
    config = train_config(load_params())
    with pytest.raises(InputError, match="runs/incomplete/last: missing, so nothing was published"):
        check_run(run, config, 1)
    with pytest.raises(InputError, match="no run there is this start's own"):
        run_of(config.invocation)
