"""Runs on one page: the miniature's, and copies of it with another seed and another draft."""

import json
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

from eagle.errors import InputError
from tests.pages import faults
from tools import compare


def change(path: Path, **values) -> None:
    source = json.loads(path.read_text())
    source["parameters"].update(values)
    path.write_text(json.dumps(source))


@pytest.fixture
def runs(reproduced, tmp_path, monkeypatch) -> Path:
    """Folders of results: base, seed (another seed), better (more is accepted, another rate)."""
    for name in ("base", "seed", "better"):
        shutil.copytree(reproduced / "results", tmp_path / name)
    change(tmp_path / "seed/train/provenance.json", seed=1)
    change(tmp_path / "better/train/provenance.json", learning_rate=0.5)
    path = tmp_path / "better/evaluate/per_prompt.csv"
    table = pd.read_csv(path)
    table["accepted"] += 3 * table["verify_steps"]
    table.to_csv(path, index=False)
    shutil.copytree(reproduced / "results/evaluate", tmp_path / "published")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_runs_are_compared_on_one_page(runs: Path, monkeypatch, capsys):
    names = ["base", "seed", "better", "published"]
    monkeypatch.setattr(sys, "argv", ["compare", *names])
    compare.main()
    printed = capsys.readouterr().out
    assert "2 seeds of base" in printed
    page = (runs / "runs/compare.html").read_text()
    for stated in (
        "train.learning_rate",
        "train.seed",
        "undecided",
        ">higher<",
        "± 0.000",
    ):
        assert stated in page
    assert "evaluate.bench" not in page  # the same in all
    found = [compare.read_run(name) for name in names]
    assert found[3].history is None
    assert [[run.name for run in group] for group in compare.groups_of(found)] == [
        ["base", "seed"], ["better"], ["published"],
    ]  # fmt: skip
    assert faults(runs / "runs/compare.html") == []


def test_a_folder_without_results_is_refused(runs: Path):
    (runs / "empty").mkdir()
    with pytest.raises(InputError, match="^empty: neither a folder of results nor"):
        compare.read_run("empty")
