"""The whole project in miniature: same code, same dvc.yaml, a tiny verifier and little data."""

import functools
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from tests.conftest import CANARIES, CANARY, ROOT, run_command
from tests.tiny import MARKED, make_conversations, make_verifier

TINY_PARAMS = {
    "verifier": {"revision": None},
    "sharegpt": {"source": "resources/conversations", "validation_fraction": 0.2},
    "regenerate": {"dtype": "float32", "maximum_new_tokens": 8},
    "template": {"file": "resources/chat_templates/tiny.jinja", "sample": 10},
    "tokens": {"maximum_model_length": 128},
    "train": {
        "epochs": 2, "global_batch_size": 4, "warmup_updates": 1, "validation_updates": 4,
        "verifier_model_dtype": "float32", "verifier_model_lm_head_dtype": "float32",
        "eagle_dtype": "float32", "mixed_precision": "none",
    },
    "evaluate": {
        "bench": "resources/bench/tiny.jsonl", "questions": 2, "maximum_new_tokens": 8,
        "dtype": "float32", "lossless_prompts": 2, "lossless_tokens": 8,
        "static_tree": [[0], [1], [0, 0]],  # named: what is chosen by its speed may differ by run
    },
}  # fmt: skip


LEFT_OUT = ("tests/", "resources/conversations/", "resources/demo/")


class Project:
    """A checkout of the miniature and the commands a user runs in it."""

    def __init__(self, folder: Path, run):
        self.folder, self._run = folder, run

    def __call__(self, *command: str, code: int | None = 0, **environment: str) -> str:
        """Run a command; returns what it printed."""
        finished = self._run(*command, cwd=self.folder, code=code, **environment)
        return finished.stdout + finished.stderr

    def set(self, section: str, **values) -> None:
        """Change keys of params.yaml."""
        path = self.folder / "params.yaml"
        params = yaml.safe_load(path.read_text())
        params[section].update(values)
        path.write_text(yaml.safe_dump(params, sort_keys=False))

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace a text in a file."""
        path = self.folder / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))


CHECK = "check_parameters"
"""The stage that every change of params.yaml runs, and that changes nothing."""


def executed(output: str) -> list[str]:
    """Stages whose command DVC ran, in order, without CHECK."""
    parts = [line for line in output.splitlines() if line.startswith("Running stage '")]
    return [line.split("'")[1] for line in parts if CHECK not in line]


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory) -> Path:
    """The miniature after one `dvc repro`, shared by pytest-xdist's processes; tests copy it.

    Beside it, `repro.log` has what DVC printed and what each stage's processes imported.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, partial, home = (shared / name for name in ("project", ".project", "home"))
    with FileLock(shared / "project.lock"):
        if not folder.exists():
            make_miniature(partial)
            first = Project(partial, functools.partial(run_command, home))
            first("git", "remote", "add", "origin", f"https://user:{CANARY}@127.0.0.1/x.git")
            output = first("dvc", "repro", PYTHONPROFILEIMPORTTIME="1", **CANARIES)
            assert len(executed(output)) == 9
            (shared / "repro.log").write_text(output)
            first("git", "add", ".")
            first("git", "commit", "--quiet", "--message", "reproduced")
            partial.rename(folder)
    return folder


def make_miniature(folder: Path) -> None:
    """A checkout that was never run."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    for name in listed:
        if (ROOT / name).is_file() and not name.startswith(LEFT_OUT):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / "dvc.lock").unlink(missing_ok=True)
    verifier = folder.parent / "verifier"
    write_tiny_data(folder / "resources", verifier)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    for section, values in (
        TINY_PARAMS | {"verifier": {"source": f"path:{verifier}", "revision": None}}
    ).items():
        params[section].update(values)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    for command in (
        ["git", "init", "--quiet"],
        ["git", "config", "user.email", "test@example.org"],
        ["git", "config", "user.name", "test"],
        ["git", "add", "."],
        ["git", "commit", "--quiet", "--message", "miniature"],
    ):
        subprocess.run(command, cwd=folder, check=True)


def write_tiny_data(resources: Path, verifier: Path) -> None:
    """The verifier, and what TINY_PARAMS names below resources/."""
    make_verifier(verifier)
    for name in ("conversations", "chat_templates", "bench"):
        (resources / name).mkdir(exist_ok=True)
    conversations = json.dumps(make_conversations(30))
    (resources / "conversations/tiny.json").write_text(conversations)
    (resources / "chat_templates/tiny.jinja").write_text(MARKED)
    questions = [
        {"question_id": 1, "category": "birds", "turns": ["why fly", "how"]},
        {"question_id": 2, "category": "cats", "turns": ["what is a mat"]},
    ]
    bench = "".join(json.dumps(question) + "\n" for question in questions)
    (resources / "bench/tiny.jsonl").write_text(bench)


@pytest.fixture
def project(reproduced, tmp_path, run) -> Project:
    """A fresh copy of the reproduced miniature, DVC's cache included."""
    shutil.copytree(reproduced, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project", run)
