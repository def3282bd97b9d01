"""What several tests share: the tiny verifier and its data, and commands as a user runs them."""

import functools
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import hub

# both are read when torch and transformers are imported
os.environ["OMP_NUM_THREADS"] = "1"  # two tests run at a time on two cores
hub.start()

import torch  # noqa: E402

from tests.tiny import MARKED, make_messages, make_verifier, write_json_lines  # noqa: E402

ROOT = Path(__file__).parents[1]
# In every secret of whole runs; a hash, as a tracker records the changes to this file.
CANARY = hashlib.sha256(b"a secret").hexdigest()[:12]
CANARIES = {
    "HF_TOKEN": f"hf_{CANARY}",
    "OPENAI_API_KEY": f"openai-{CANARY}",
    "CLEARML_API_SECRET_KEY": f"clearml-{CANARY}",
    "HTTPS_PROXY": f"http://user:{CANARY}@127.0.0.1:9",
}
"""Variables with secrets, of which none may get into a file or what is printed."""


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no GPU here")


on_both_devices = pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)], indirect=True
)


@pytest.fixture
def device(request) -> torch.device:
    """The CPU, and for tests marked `on_both_devices` also a GPU."""
    return torch.device(getattr(request, "param", "cpu"))


@pytest.fixture(scope="session")
def tiny_verifier(tmp_path_factory) -> Path:
    """A verifier whose own template has no generation markers."""
    return make_verifier(tmp_path_factory.mktemp("tiny") / "verifier")


@pytest.fixture(scope="session")
def marked_verifier(tmp_path_factory) -> Path:
    """A verifier whose own template has generation markers, as the tutorial expects."""
    return make_verifier(tmp_path_factory.mktemp("tiny") / "marked", MARKED)


@pytest.fixture(scope="session", autouse=True)
def no_signal_is_ignored():
    """Processes inherit what is ignored, and nohup and shells' background jobs ignore some."""
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


@pytest.fixture(scope="session")
def messages_file(tmp_path_factory) -> Path:
    return write_json_lines(tmp_path_factory.mktemp("tiny") / "data.jsonl", make_messages(40))


@pytest.fixture
def run(tmp_path):
    """`run_command` with a home of its own."""
    return functools.partial(run_command, tmp_path)


def run_command(
    home: Path,
    *command: str | Path,
    cwd: Path = ROOT,
    code: int | None = 0,
    seconds: float = 240,
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """Run a command as a user does, from a folder; no tracker is set. Returns what it printed.

    Args:
        code: 0 if it must end well, another number if it must fail, None if it may do either.
        seconds: the longest that it may take.
    """
    words = [str(word) for word in command]
    clean = {name: value for name, value in os.environ.items() if "CLEARML" not in name}
    path = f"{Path(sys.executable).parent}:{clean['PATH']}"
    clean |= {"PATH": path, "HOME": str(home), "EAGLE_CACHE": str(home / "cache")}
    finished = subprocess.run(
        words, cwd=cwd, env=clean | environment, capture_output=True, text=True, timeout=seconds
    )
    well = finished.returncode == 0
    assert code is None or well == (code == 0), finished.stdout + finished.stderr
    return finished


def files_with_a_canary(folder: Path) -> list[Path]:
    """The files below a folder, but for git's own settings, in which a secret stands."""
    return [
        path
        for path in folder.rglob("*")
        if path.is_file()
        and CANARY.encode() in path.read_bytes()
        and path.parts[-2:] != (".git", "config")
    ]
