"""A provenance tells whether the code was that of its commit."""

import subprocess
from pathlib import Path

import pytest

from eagle.provenance import provenance


def git(*arguments: str) -> None:
    identity = ["-c", "user.email=test@example.org", "-c", "user.name=test"]
    subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)


@pytest.mark.parametrize(("changed", "dirty"), [("dvc.lock", False), ("params.yaml", True)])
def test_what_dvc_records_while_stages_run_is_no_change_of_the_code(
    tmp_path, monkeypatch, changed, dirty
):
    monkeypatch.chdir(tmp_path)
    for name in ("dvc.lock", "params.yaml"):
        Path(name).write_text("before\n")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "base")
    Path(changed).write_text("after\n")
    assert provenance({}, {}, 0.0)["git_dirty"] is dirty
