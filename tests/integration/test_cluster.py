"""The workflow as jobs of SLURM, and training over several nodes, on a SLURM of two nodes."""

import functools
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import ROOT, run_command
from tests.integration.conftest import Project
from tests.integration.test_dag import STAGES, changed
from tests.slurm import NoSlurm, cluster

pytestmark = pytest.mark.timeout(1800)  # jobs wait in queues; what works takes seconds
SNAKEMAKE = (
    "snakemake", "--profile", "workflow/profiles/slurm",
    "--slurm-init-seconds-before-status-checks", "1",
    "--set-threads", "train=1", "--",  # as in the runs that they are compared with
)  # fmt: skip
COMPUTED = (
    "models/draft", "models/export", "resources/replies", "resources/sharegpt", "resources/tokens",
    "results/template",
)  # fmt: skip
"""Outputs without times in them, but for these files."""
WITH_TIMES = ("README.md", "provenance.json", "SHA256SUMS.txt", ".snakemake_timestamp")
UPDATES = 12  # of the miniature's training


@pytest.fixture(scope="module")
def slurm(tmp_path_factory) -> Iterator[dict[str, str]]:
    """The variables of a running SLURM."""
    try:
        with cluster(tmp_path_factory.mktemp("slurm") / "etc") as environment:
            yield environment
    except NoSlurm as reason:
        pytest.skip(str(reason))


class OnSlurm:
    """A project whose commands find SLURM."""

    def __init__(self, project: Project, slurm: dict[str, str]):
        self.project, self.folder, self.slurm = project, project.folder, slurm

    def __call__(self, *command: str, code: int | None = 0) -> str:
        try:
            return self.project(*command, code=code, **self.slurm)
        except AssertionError as error:  # what the jobs themselves said
            logs = sorted(self.folder.rglob(".snakemake/**/*.log"))
            said = "".join(f"\n== {log}\n{log.read_text()}" for log in logs)
            raise AssertionError(f"{error}{said}") from None

    def job(self, stage: str) -> str | None:
        """The number of the running job of a stage."""
        listed = self("squeue", "--noheader", "--states=RUNNING", "--format=%i %k %Z")
        rows = [line.split() for line in listed.splitlines()]
        found = [number for number, rule, folder in rows
                 if rule == f"rule_{stage}" and Path(folder) == self.folder]  # fmt: skip
        return found[0] if found else None

    def slow_down(self) -> None:
        """Let a new training take half a second for an update, with a state after each."""
        shutil.rmtree(self.folder / "runs")
        done = "            self.state.update += 1\n"
        self.project.edit("eagle/training/trainer.py", done, f"{done}            time.sleep(0.5)\n")
        self.project.set("machine", save_updates=1, save_minutes=0)

    def saved_after(self, times: int) -> int:
        """The update after which training, requeued so many times before, saved its state."""

        def found() -> list[str]:
            log = (self.folder / "job.log").read_text()
            return re.findall("ended by SIGTERM after update ([0-9]+)", log)[times:]

        return int(wait_for(found)[0])

    def states(self) -> int:
        """The update of the newest state of the run."""
        found = self.folder.glob("runs/*/state-*.pt")
        return max((int(path.name.split("-")[1]) for path in found), default=0)


def wait_for(what: Callable[[], object]) -> object:
    until = time.monotonic() + 600
    while not (found := what()):
        assert time.monotonic() < until
        time.sleep(0.1)
    return found


def files(folder: Path) -> dict[str, bytes]:
    """The computed outputs of a project: names and bytes."""
    paths = [path for name in COMPUTED for path in (folder / name).rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in paths
        if path.name not in WITH_TIMES
    }


@pytest.fixture
def on_slurm(project: Project, slurm, run) -> OnSlurm:
    return OnSlurm(Project(project.folder, functools.partial(run, seconds=900)), slurm)


def test_a_cancelled_job_goes_on_when_the_workflow_is_started_again(on_slurm, reproduced):
    """Its outputs are those of a run on one machine, whose files stay until they are replaced."""
    on_slurm.slow_down()
    with ThreadPoolExecutor() as pool:
        first = pool.submit(on_slurm, *SNAKEMAKE, "train", code=1)
        wait_for(lambda: first.done() or on_slurm.states() >= 2)
        assert not first.done(), first.result()
        job = on_slurm.job("train")
        described = on_slurm("scontrol", "show", "job", job)
        on_slurm("scancel", job)
        assert "SLURM status is: 'CANCELLED'" in first.result()
    for asked in (
        "NumCPUs=1 ",
        "MinMemoryNode=4000M",
        "TresPerJob=gres:gpu:1",
        "TimeLimit=12:00:00",
    ):
        assert asked in described
    assert 2 <= on_slurm.states() < UPDATES
    on_slurm(*SNAKEMAKE, "train")
    log = (on_slurm.folder / ".snakemake/log/train.log").read_text()
    assert int(re.search("resumed at update ([0-9]+)", log)[1]) >= 2
    assert files(on_slurm.folder) == files(reproduced)
    assert changed(on_slurm.folder) <= {"evaluate", "write_report"}


def test_two_nodes_train_like_two_processes_though_the_job_is_requeued_twice(on_slurm, run):
    """Once by the signal that SLURM sends before a job's limit, once as by a preemption."""
    on_slurm.slow_down()
    on_slurm.project.set("machine", processes=2)
    shutil.copytree(on_slurm.folder, on_slurm.folder.with_name("one"), symlinks=True)
    with ThreadPoolExecutor() as pool:
        local = pool.submit(Project(on_slurm.folder.with_name("one"), run), "dvc", "repro", "train")
        asked = ("--parsable", "--nodes=2", "--gpus-per-node=1", "--mem=2G", "--output=job.log")
        job = on_slurm("sbatch", *asked, "workflow/repro.sbatch", "train").strip()
        wait_for(lambda: on_slurm.states() >= 2)
        on_slurm("scancel", "--batch", "--signal=USR1", job)
        first = on_slurm.saved_after(0)
        wait_for(lambda: on_slurm.states() >= first + 2)
        on_slurm("scontrol", "requeue", job)
        second = on_slurm.saved_after(1)
        wait_for(lambda: on_slurm("squeue", "--noheader", "--states=COMPLETED", "--job", job))
        local.result()
    assert 2 <= first < second < UPDATES
    log = (on_slurm.folder / "job.log").read_text()
    assert f"resumed at update {first}" in log and f"resumed at update {second}" in log
    assert log.count("train: wrote runs/") == 1  # by the first of all processes
    assert "Traceback" not in log and "\nerror: " not in log
    assert files(on_slurm.folder) == files(on_slurm.folder.with_name("one"))
    assert changed(on_slurm.folder) == changed(on_slurm.folder.with_name("one"))


@pytest.mark.parametrize(
    ("gpus", "message"),
    [
        ("--gpus=3", "the nodes of this job differ in GPUs (127.0.0.1: 2, 127.0.0.2: 1)"),
        ("--gpus-per-node=1", "machine.processes = 3, and this job has 2 nodes with 1 GPUs each"),
        ("--gpus=0", "machine.processes = 3, and this job has 2 nodes; make it the number of GPUs"),
    ],
)
def test_nodes_that_cannot_share_the_processes_are_refused(slurm, run, gpus, message):
    ask = "from eagle.slurm import *; from eagle.errors import *\n"
    ask += "with one_clear_message(): processes_a_node(3)"
    said = run("salloc", "--nodes=2", gpus, "python", "-c", ask, code=1, **slurm).stderr
    assert f"error: {message}" in said
    assert "Traceback" not in said


def test_launchers_that_do_not_meet_say_so_in_one_line():
    meeting = ["--nnodes=2", "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--rdzv-id=1"]
    command = [sys.executable, "-m", "eagle.lifetime", str(os.getpid()), "torch.distributed.run"]
    ended = subprocess.run(
        [*command, *meeting, "--rdzv-conf=join_timeout=1", "eagle/train.py"], cwd=ROOT,
        capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 1
    (line,) = [line for line in ended.stderr.splitlines() if "error" in line.lower()]
    assert line.startswith("error: ") and "did not meet those of the other nodes" in line
    assert "Traceback" not in ended.stderr


@pytest.mark.long
@pytest.mark.timeout(5400)
def test_ten_workflows_with_a_cancelled_stage_each_are_that_of_one_machine(
    slurm, reproduced, tmp_path
):
    """In each another stage is cancelled while it works, every second time without a warning."""
    generator = random.Random(0)
    seconds = {stage: generator.uniform(5, 12) for stage in ("check_parameters", *STAGES)}

    def run(number: int, stage: str) -> str:
        folder = tmp_path / stage / "project"
        shutil.copytree(reproduced, folder, symlinks=True)
        names = ("runs", "dvc.lock", ".dvc/cache", ".dvc/tmp", "resources/verifier", *COMPUTED)
        for path in (*folder.glob("results/[!.]*"), *(folder / name for name in names)):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        patient = functools.partial(run_command, tmp_path / stage, seconds=3600)
        here = OnSlurm(Project(folder, patient), slurm)
        with ThreadPoolExecutor() as pool:
            first = pool.submit(here, *SNAKEMAKE, "all", code=1)
            job = wait_for(lambda: here.job(stage) or first.done())
            time.sleep(seconds[stage])
            here("scancel", *(("--full", "--signal=KILL") if number % 2 else ()), job)
            said = first.result()
        assert f"Error in rule {stage}" in said
        second = here(*SNAKEMAKE, "all")
        assert files(folder) == files(reproduced)
        assert changed(folder) == set()
        return said + second

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(run, range(10), seconds))
