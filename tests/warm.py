"""Python commands in processes that have torch and transformers already.

Importing them is most of what a short command takes. A server process (multiprocessing's fork
server) imports them once and forks for each command; nothing of this project is imported in it, so
a command runs the code of the folder it is started in, in a process of its own.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

SECONDS = 240
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["pandas", "transformers.models.llama.modeling_llama"])


def python(
    arguments: list[str], cwd: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """`python *arguments`, a file or -m and a module first; what it printed and its exit code.

    What torch and transformers read from the environment when they are imported is the server's.
    """
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder, name) for name in ("stdout", "stderr")]
        process = FORKS.Process(target=_run, args=(arguments, cwd, environment, outputs))
        process.start()
        process.join(SECONDS)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(arguments, SECONDS)
        printed = [path.read_text() for path in outputs]
    return subprocess.CompletedProcess(arguments, process.exitcode, *printed)


def _run(arguments: list[str], cwd: Path, environment: dict[str, str], outputs: list[Path]) -> None:
    for descriptor, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    is_module = arguments[0] == "-m"
    sys.argv = arguments[is_module:]
    ours = str(Path(__file__).parents[1])
    first = cwd if is_module else (cwd / arguments[0]).parent
    sys.path[:] = [str(first), *(path for path in sys.path if path not in (ours, ""))]
    if is_module:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")
