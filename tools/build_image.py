"""Build docker/Dockerfile where there is no Docker engine and no registry of images.

    apt-get install --no-install-recommends buildah debootstrap
    python -m tools.build_image cpu --base bookworm

Buildah carries out the Dockerfile itself; its base is a fresh Debian that debootstrap makes of
Debian's packages. As root, because both change roots. What is committed is built, from a clone.
The build's pip reaches packages as this machine's does: pip's settings here, and the folders that
they name, are mounted while it runs and are in no layer. The image is `eagle:TARGET` in buildah's
own storage (CONTAINERS_STORAGE_CONF moves it); `buildah push eagle:cpu oci-archive:eagle.tar`
writes it to a file, docker-daemon:eagle:cpu gives it to Docker.
"""

import ast
import re
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from eagle.command_line import parser
from eagle.errors import InputError, one_clear_message

DOCKERFILE = "docker/Dockerfile"
STEP = re.compile(r"(?:\[\d+/\d+\] )?STEP \d+/\d+: (.*)")


def build(target: str, suite: str) -> dict[str, float]:
    """Build `eagle:TARGET` from the commit checked out, and print what buildah prints.

    Args:
        target: a stage of the Dockerfile.
        suite: the Debian release of the base.

    Returns:
        The steps that took a second or more, and their seconds.

    Raises:
        InputError: a program is missing, or a step failed.
    """
    for program in ("debootstrap", "buildah"):
        if shutil.which(program) is None:
            raise InputError(f"{program}: not installed; apt-get install {program}")
    base = _base(suite)
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder) / "eagle"
        subprocess.run(["git", "clone", "--quiet", ".", context], check=True)
        revision = subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip()
        command = [
            "buildah", "build", "--isolation", "chroot", "--pull=never", "--target", target,
            "--tag", f"eagle:{target}", "--file", DOCKERFILE, "--build-arg", f"BASE={base}",
            "--build-arg", "TORCH_INDEX=", "--build-arg", f"REVISION={revision}",
            *_pip_of_this_machine(Path(folder) / "pip.conf"), ".",
        ]  # fmt: skip
        steps: list[tuple[str, float]] = []
        with subprocess.Popen(
            command, cwd=context, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            for line in process.stdout:
                print(line, end="", flush=True)
                if step := STEP.match(line):
                    steps.append((step[1].strip(), time.monotonic()))
            steps.append(("", time.monotonic()))
    if process.returncode:
        raise InputError(f"{DOCKERFILE}: {steps[-2][0]}: failed; what it printed stands above")
    seconds = {}
    for (step, began), (_, ended) in pairwise(steps):
        seconds[step] = seconds.get(step, 0) + ended - began
    return {step: taken for step, taken in seconds.items() if taken >= 1}


def _base(suite: str) -> str:
    """The name of an image of a Debian release, which is made if it is not there."""
    name = f"localhost/debian:{suite}"
    if subprocess.run(["buildah", "inspect", "--type=image", name], capture_output=True).returncode:
        with tempfile.TemporaryDirectory() as root:
            _run("debootstrap", "--variant=minbase", suite, root)
            container = _run("buildah", "from", "scratch")
            _run("buildah", "add", "--quiet", container, root, "/")
            _run("buildah", "commit", "--quiet", "--rm", container, name)
    return name


def _pip_of_this_machine(settings: Path) -> list[str]:
    """Volumes with pip's settings here, as a file that is written, and with the files they name."""
    listed = _run(sys.executable, "-m", "pip", "config", "list").splitlines()
    pairs = [line.partition("=")[::2] for line in listed]
    # the environment's come first, and count most
    values = {key.rpartition(".")[2]: ast.literal_eval(value) for key, value in reversed(pairs)}
    named = {
        Path(path) if scheme == "" else Path(path).parent  # an index refers to files beside it
        for value in values.values()
        for scheme, path in re.findall(r"(?:^|\s)(file://)?(/\S+)", value)
    }
    mounts = {path: f"/run/pip{path}" for path in named if path.exists()}
    for path, inside in mounts.items():
        values = {
            key: re.sub(rf"(^|\s|file://){re.escape(str(path))}", rf"\1{inside}", value)
            for key, value in values.items()
        }
    lines = [f"{key} = {' '.join(value.split())}" for key, value in values.items()]
    settings.write_text("\n".join(["[global]", *lines, ""]))
    mounts[settings] = "/etc/pip.conf"
    return [f"--volume={path}:{inside}:ro" for path, inside in mounts.items()]


def _run(*command: str) -> str:
    finished = subprocess.run(command, capture_output=True, text=True)
    if finished.returncode:
        raise InputError(f"{' '.join(command)}: {(finished.stdout + finished.stderr)[-1000:]}")
    return finished.stdout.strip()


def main() -> None:
    options = parser("tools.build_image", __doc__)
    options.add_argument("target", help="a stage of docker/Dockerfile, such as cpu")
    options.add_argument("--base", default="bookworm", help="the Debian release of its base")
    arguments = options.parse_args()
    for step, seconds in build(arguments.target, arguments.base).items():
        print(f"{seconds:6.0f} s  {step[:100]}")
    print(_run("buildah", "images", "--format", "{{.Name}}:{{.Tag}} {{.Size}}"))


if __name__ == "__main__":
    with one_clear_message():
        main()
