"""The demo of the miniature's own draft: made, shown, and refused where a file is not whole."""

import shutil
import sys
from pathlib import Path

import pytest
from dvc.repo import Repo

from eagle.errors import InputError
from eagle.files import write_json
from tests.integration.conftest import Project
from tests.tiny import flip
from tools import demo, make_demo
from tools.verify import damaged_files
from tools.verify_export import verify_export


@pytest.fixture
def here(project: Project, monkeypatch):
    """The project as the current folder, in this process, with a demo."""
    monkeypatch.chdir(project.folder)
    monkeypatch.setattr(sys, "argv", ["demo"])
    make_demo.main()
    return project


def test_the_draft_of_the_last_run_is_shown(here: Project, capsys):
    assert verify_export(demo.DEMO) == 0
    assert demo.main() == 0
    shown = capsys.readouterr().out
    assert "unpacking" not in shown
    assert shown.count("speculative: ") == 3
    assert "speed-up: " in shown
    # where another verifier is, the draft's own is taken from its source
    write_json(Path("resources/verifier/manifest.json"), {"files": {}})
    assert demo.main() == 0
    assert "unpacking the verifier from path:" in capsys.readouterr().out


def test_a_file_that_is_missing_or_damaged_is_one_message_and_git_has_it(here: Project):
    for command in ("add .", "commit --quiet --message demo"):
        here("git", *command.split())
    weights = demo.DEMO / "model.safetensors"
    flip(weights)
    with pytest.raises(InputError, match="model.safetensors: its SHA-256 is .*tools.verify"):
        demo.main()
    with Repo() as repo:
        (damage,) = damaged_files(repo)[0]
    assert (damage.path, damage.mend) == (weights, "git checkout -- resources/demo")
    here("git", "checkout", "--", "resources/demo")
    weights.unlink()
    with pytest.raises(InputError, match="model.safetensors: there is no such file, and SHA256SUM"):
        demo.main()
    shutil.rmtree(demo.DEMO)
    with pytest.raises(InputError, match="resources/demo/verifier.json: there is no such file"):
        demo.main()
