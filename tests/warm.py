"""Python commands in processes that have torch and transformers already.

Importing them is most of what a short command takes. A server process imports them once and forks
for each command; nothing of this project is imported in it, so a command runs the code of the
folder it is started in, in a process of its own. What asks it is called `python` and stands first
on the PATH of the tests' commands, so that DVC's and Snakemake's stages are served as well.
"""

import atexit
import functools
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

IMPORTED = ["pandas", "transformers.models.llama.modeling_llama"]
CLIENT = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [b"."], [0, 1, 2])
    server.sendall(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode())
    server.shutdown(socket.SHUT_WR)
    sys.exit(int(server.recv(16)))
"""


class Server(NamedTuple):
    folder: Path
    """Has `python`; for the PATH."""
    process: subprocess.Popen
    """Ends when its input does, which the process that started it holds open."""


@functools.cache
def server() -> Server:
    """This process's; started at the first call.

    What torch and transformers read from the environment when they are imported is the server's.
    """
    folder = Path(tempfile.mkdtemp())
    address = folder / "socket"
    process = subprocess.Popen(
        [sys.executable, __file__, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"ready\n"
    client = folder / "python"
    client.write_text(CLIENT.format(python=sys.executable, address=str(address)))
    client.chmod(0o755)
    return Server(folder, process)


def serve(address: str) -> None:
    for name in IMPORTED:
        import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait below
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                answer(connection)
                return
            connection.close()
    shutil.rmtree(Path(address).parent)


def answer(connection: socket.socket) -> None:
    """Run what one client asks for, and tell it the exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    descriptors = socket.recv_fds(connection, 1, 3)[1]
    arguments, cwd, environment = json.load(connection.makefile("rb"))
    command = os.fork()
    if command:
        status = os.waitpid(command, 0)[1]
        connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    connection.close()
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    code = run(arguments)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # taking all the modules apart would take over a second


def run(arguments: list[str]) -> int:
    """`python *arguments`, a file or -m and a module first; the exit code."""
    is_module = arguments[0] == "-m"
    sys.argv = arguments[is_module:]
    # in place of this file's folder
    sys.path[0] = os.getcwd() if is_module else str(Path(arguments[0]).resolve().parent)
    start = functools.partial(runpy.run_module, alter_sys=True) if is_module else runpy.run_path
    try:
        start(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    serve(sys.argv[1])
