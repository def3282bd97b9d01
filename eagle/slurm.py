"""The nodes of the SLURM job in which a stage was started, and how a command starts on each.

SLURM's own variables say all of it. https://slurm.schedmd.com/sbatch.html, OUTPUT ENVIRONMENT
VARIABLES.
"""

import os
import re
import subprocess

from eagle.errors import InputError

# Seconds that a job's other launchers have once the first has ended; training ends on all nodes
# together, so one that goes on waits for what will not come.
LONGEST_END = 60
# Seconds in which the launchers must find each other. They import torch first, which takes minutes
# where many nodes read it from one shared folder.
LONGEST_MEETING = 600
# Ports of users, below those that systems give away by themselves.
FIRST_PORT, PORTS = 15_000, 10_000


def in_batch_script() -> bool:
    """Whether this is the script of a job (or a shell of `salloc`), and no step of it.

    A step has its own share of the job's nodes; the script has all of them, and starts steps.
    """
    return "SLURM_JOB_ID" in os.environ and "SLURM_STEP_ID" not in os.environ


def number_of_nodes() -> int:
    return int(os.environ["SLURM_JOB_NUM_NODES"])


def once_a_node() -> list[str]:
    """The words before a command that run it once on each of the job's nodes, as one step.

    The step ends when this process does, whatever ended it, without time for another state.
    """
    nodes = number_of_nodes()
    return [
        "setpriv", "--pdeathsig", "TERM",
        "srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--export=ALL",
        f"--wait={LONGEST_END}",
    ]  # fmt: skip


def processes_a_node(processes: int) -> int:
    """How many of the training processes each node gets.

    Raises:
        InputError: the nodes cannot share them evenly, or not with one GPU for each.
    """
    nodes = number_of_nodes()
    gpus = gpus_of_nodes()
    if len(set(gpus.values())) > 1:
        raise InputError(
            f"the nodes of this job differ in GPUs ({_listed(gpus)}), and training has as many "
            "processes on each; ask for as many on every node: sbatch --gpus-per-node"
        )
    each = next(iter(gpus.values())) or processes // nodes
    if processes != each * nodes:
        found = f"{nodes} nodes" + (f" with {each} GPUs each" if any(gpus.values()) else "")
        raise InputError(
            f"machine.processes = {processes}, and this job has {found}; make it the number of "
            "GPUs of all nodes (without GPUs: a multiple of the nodes), or ask for others: sbatch "
            "--nodes, --gpus-per-node"
        )
    return each


def gpus_of_nodes() -> dict[str, int]:
    """The number of GPUs that the job has on each of its nodes.

    Raises:
        InputError: SLURM could not ask them.
    """
    command = [*once_a_node(), "sh", "-c", "echo $SLURMD_NODENAME ${SLURM_GPUS_ON_NODE:-0}"]
    asked = subprocess.run(command, capture_output=True, text=True)
    if asked.returncode:
        raise InputError(f"srun could not start on the job's nodes: {asked.stderr.strip()}")
    return {name: int(gpus) for name, gpus in map(str.split, asked.stdout.splitlines())}


def meeting() -> list[str]:
    """torchrun's flags by which the launchers of a job find each other: at its first node, and at a
    port that other jobs there do not take."""
    job = os.environ["SLURM_JOB_ID"]
    names = subprocess.run(
        ["scontrol", "show", "hostnames", os.environ["SLURM_JOB_NODELIST"]],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    return [
        f"--nnodes={number_of_nodes()}", "--rdzv-backend=c10d", f"--rdzv-id={job}",
        f"--rdzv-endpoint={names[0]}:{FIRST_PORT + int(job) % PORTS}",
        f"--rdzv-conf=join_timeout={LONGEST_MEETING},read_timeout={LONGEST_MEETING}",
    ]  # fmt: skip


def cpus_on_first_node() -> int:
    """The CPUs that the job has there, of those that the machine has."""
    return int(re.match("[0-9]+", os.environ["SLURM_JOB_CPUS_PER_NODE"])[0])  # as in 16(x3),8


def _listed(gpus: dict[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in sorted(gpus.items()))
