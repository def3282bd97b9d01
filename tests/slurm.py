"""A SLURM of two nodes on this machine, beside any other that runs here.

Each node is a slurmd with process ids, a hostname and a /var/tmp of its own; the nodes share the
files. Their names are addresses of the loopback interface, so that every resolver knows them.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

NODES = {"127.0.0.1": ("null", "zero"), "127.0.0.2": ("null",)}
"""For each node the devices that SLURM is told are its GPUs."""
PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "srun", "setpriv", "unshare")
CONFIGURATION = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthInfo=socket={folder}/munge.socket,cred_expire=15
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
GresTypes=gpu
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE
"""
# the shell is the node's process 1: what it started ends with it, and it takes leave of the dead,
# whose numbers DVC would otherwise take for processes at work
NODE = """
hostname {name}
mount --bind {folder} /etc/slurm
mount -t tmpfs tmpfs /var/tmp
slurmd -D -N {name} &
wait
"""


class NoSlurm(Exception):
    """SLURM cannot run here; the message says why."""


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Run it; yields the variables by which SLURM's commands find it.

    Raises:
        NoSlurm: a program is missing, or a daemon does not start.
    """
    if os.getuid() != 0:
        raise NoSlurm("SLURM's daemons need root")
    if missing := [name for name in PROGRAMS if not shutil.which(name)]:
        raise NoSlurm(f"no {missing[0]}: apt-get install slurm-wlm munge")
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    (folder / "state").mkdir()
    environment = {"SLURM_CONF": str(folder / "slurm.conf")}
    controller, *ports = _free_ports(1 + len(NODES))
    host = socket.gethostname()
    configuration = CONFIGURATION.format(folder=folder, host=host, port=controller)
    for (name, gpus), port in zip(NODES.items(), ports, strict=True):
        configuration += (
            f"NodeName={name} NodeAddr=127.0.0.1 NodeHostname={host} Port={port} CPUs=16 "
            f"RealMemory=64000 Gres=gpu:{len(gpus)}\n"
        )
    (folder / "slurm.conf").write_text(configuration)
    (folder / "gres.conf").write_text(
        "".join(
            f"NodeName={name} Name=gpu File=/dev/{gpu}\n"
            for name, gpus in NODES.items()
            for gpu in gpus
        )
    )
    (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
    subprocess.run(["mungekey", "--create", "--keyfile", folder / "key"], check=True)
    with ExitStack() as stack:

        def start(name: str, *command: str | Path) -> None:
            log = stack.enter_context((folder / f"{name}.started").open("w"))
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command], env=os.environ | environment,
                stdout=log, stderr=log,
            )  # fmt: skip
            stack.callback(_end, process)

        start(
            "munged", "munged", "--foreground", "--force", "--key-file", folder / "key",
            "--socket", folder / "munge.socket", "--seed-file", folder / "seed",
            "--pid-file", folder / "munged.pid", "--log-file", folder / "munged.log",
        )  # fmt: skip
        _wait((folder / "munge.socket").exists, folder)
        start("slurmctld", "slurmctld", "-D")
        for name in NODES:
            start(
                name, "unshare", "--pid", "--uts", "--mount", "--fork", "--kill-child",
                "--mount-proc", "sh", "-ec", NODE.format(name=name, folder=folder),
            )  # fmt: skip
        _wait(
            lambda: _says(environment, "sinfo", "-h", "-o", "%D %t") == f"{len(NODES)} idle", folder
        )
        yield environment


def _says(environment: dict[str, str], *command: str) -> str:
    finished = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    return finished.stdout.strip()


def _wait(ready, folder: Path) -> None:
    until = time.monotonic() + 30
    while not ready():
        if time.monotonic() > until:
            said = "".join(path.read_text() for path in sorted(folder.glob("*.started")))
            fatal = [line for line in said.splitlines() if "fatal" in line] or [said[-300:]]
            raise NoSlurm(f"its daemons do not start here: {fatal[0]}")
        time.sleep(0.1)


def _end(process: subprocess.Popen) -> None:
    process.kill()  # a node's process numbers end with it, and all that runs under them
    process.wait()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
