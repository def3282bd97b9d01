"""Run one stage many times, each in a process of its own that a fault meets.

    python -m tests.faults.server STAGE PROJECT NOTES

The stage is imported, and run once in PROJECT, before it is forked, so that a run takes no seconds
for imports. Each line of standard input is JSON: the project to run in, and a list. That has the
arguments of strace, or a number, the size that no file may exceed; empty, it is a run without a
fault. The answer is a line with the exit code; what the run printed is in NOTES/printed, what
strace did in NOTES/traced.

Training runs in the stage's own process in place of torchrun's.
"""

import contextlib
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import traceback

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads do not outlive a fork


def run(stage, name: str) -> int:
    sys.argv = [f"scripts/{name}.py"]
    try:
        stage.run_stage(stage.main, stage.__doc__)
    except SystemExit as end:
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def forked(stage, name: str, notes: str, project: str, fault: list) -> int:
    """The exit code of a run; negative: it was killed."""
    traced = fault and isinstance(fault[0], str)
    with open(f"{notes}/printed", "wb") as file:  # not the child's own: its limit is not for this
        printed = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=file)
    child = os.fork()
    if child == 0:
        os.chdir(project)
        os.dup2(printed.stdin.fileno(), 1)
        os.dup2(printed.stdin.fileno(), 2)
        if traced:
            os.kill(os.getpid(), signal.SIGSTOP)
        elif fault:
            resource.setrlimit(resource.RLIMIT_FSIZE, (fault[0], resource.RLIM_INFINITY))
        code = run(stage, name)
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(code)
    if traced:
        os.waitpid(child, os.WUNTRACED)
        strace = subprocess.Popen(
            ["strace", "-f", "-y", "-p", str(child), "-o", f"{notes}/traced", *fault],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        attached = strace.stderr.readline()
        assert "attached" in attached, attached
        os.kill(child, signal.SIGCONT)
        status = os.waitpid(child, 0)[1]
        strace.communicate()
    else:
        status = os.waitpid(child, 0)[1]
    printed.communicate()
    return os.waitstatus_to_exitcode(status)


def main(name: str, project: str, notes: str) -> None:
    stage = importlib.import_module(f"scripts.{name}")
    if name == "train":
        from eagle.config import TrainConfig, parse_command
        from eagle.train import train

        stage.torchrun = lambda _processes, flags: train(parse_command(TrainConfig, flags, name))
    if name != "write_report":  # the thread of its charts' engine does not outlive a fork
        here = os.getcwd()
        os.chdir(project)
        with contextlib.redirect_stdout(sys.stderr):
            assert run(stage, name) == 0  # imports what is imported late
        os.chdir(here)
    print("ready", flush=True)
    for line in sys.stdin:
        print(forked(stage, name, notes, *json.loads(line)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
