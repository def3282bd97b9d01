"""The long tests' record, on a small repository with real git and real pytest."""

import json
import shutil
import subprocess

import pytest

from eagle.errors import InputError
from tests.conftest import ROOT
from tools.test_long import PARTS, RECORD, main

TESTS = """
from pathlib import Path
import pytest

def ran(name):
    with Path("../ran").open("a") as log:
        log.write(name + "\\n")

@pytest.mark.long
def test_passes():
    ran("passes")

@pytest.mark.long
def test_waits():
    ran("waits")
    assert Path("../mended").exists()

def test_short():
    ran("short")
"""
KILLS = """
import pytest

@pytest.mark.long
def test_skipped():
    pytest.skip("nothing to kill")
"""


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Long tests in two parts: one passes, one fails at first, one is skipped."""
    folder = tmp_path / "repository"
    for name, text in (("unit/test_small.py", TESTS), ("integration/test_resume.py", KILLS)):
        (folder / "tests" / name).parent.mkdir(parents=True)
        (folder / "tests" / name).write_text(text)
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / ".gitignore").write_text("__pycache__\n.pytest_cache\n")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # they take most of a small run
    monkeypatch.chdir(folder)
    subprocess.run(["git", "init", "--quiet"], check=True)
    commit()
    return folder


def commit() -> str:
    author = ("-c", "user.email=test@example.org", "-c", "user.name=test")
    subprocess.run(["git", "add", "."], check=True)
    message = ("commit", "--quiet", "--allow-empty", "--message", "state")
    subprocess.run(["git", *author, *message], check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    return head.stdout.strip()


def test_only_what_passed_on_one_commit_is_recorded(repository, capsys):
    ran, small = repository.parent / "ran", "tests/unit/test_small.py"
    assert main(["units"]) == 1
    assert ran.read_text().split() == ["passes", "waits"]
    record = json.loads(RECORD.read_text())
    skipped = "tests/integration/test_resume.py::test_skipped"
    assert list(record["parts"]["units"]) == [f"{small}::test_passes"]
    assert record["missing"] == [skipped, f"{small}::test_waits"]
    closing = capsys.readouterr().out.splitlines()[-1]
    assert "incomplete, missing 1 of kills, 1 of units" in closing

    (repository.parent / "mended").touch()
    assert main([]) == 1  # a skipped test did not pass
    assert ran.read_text().split() == ["passes", "waits", "waits"]
    assert json.loads(RECORD.read_text())["missing"] == [skipped]

    (repository / "tests/integration/test_resume.py").unlink()
    with pytest.raises(InputError, match=r"test_resume.py: not committed \(and 0 more files\)"):
        main([])
    head = commit()
    assert main(["units"]) == 0
    record = json.loads(RECORD.read_text())
    assert record["commit"] == head
    assert len(record["parts"]["units"]) == 2
    assert ran.read_text().split() == ["passes", "waits", "waits", "passes", "waits"]
    assert "2 tests passed on commit " + head[:7] + "; complete" in capsys.readouterr().out


def test_an_unknown_part_is_refused():
    with pytest.raises(InputError, match="kill: no such part; choose from kills, "):
        main(["kill"])


def test_the_parts_name_what_exists_and_hold_every_test():
    paths = [path for paths in PARTS.values() for path in paths]
    assert [path for path in paths if not (ROOT / path).exists()] == []
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "tests").rglob("test_*.py")}
    assert {folder.parts[1] for folder in folders} <= {path.split("/")[1] for path in paths}
