"""The grid of a sweep, and the names of its runs."""

import re

import pytest

from eagle.errors import InputError
from tests.conftest import ROOT
from tools.sweep import SHOW, grid, name_of


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_a_grid_has_every_combination_and_numbers_are_numbers():
    runs = grid(["train.learning_rate=1e-4,0.0003", "train.seed=0,1,2"])
    assert [tuple(run.values()) for run in runs] == [
        (1e-4, 0), (1e-4, 1), (1e-4, 2), (3e-4, 0), (3e-4, 1), (3e-4, 2),
    ]  # fmt: skip
    (tree, named) = grid(["evaluate.static_tree=[[0],[1]],mc_sim_7b_63"])
    assert tree == {"evaluate.static_tree": [[0], [1]]}
    assert named == {"evaluate.static_tree": "mc_sim_7b_63"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train.lerning_rate=1"], "unknown key; the nearest known key is train.learning_rate"),
        (["train.seed=0,x"], "train.seed = 'x': Input should be a valid integer"),
        (["train.global_batch_size=4", "machine.processes=1,7"], "cannot be divided among 7"),
        (["train.seed"], "expected SECTION.KEY=VALUE"),
        (["train.seed=1", "train.seed=2"], "expected SECTION.KEY=VALUE.* for each key once"),
        (["train.seed=[1"], "not values as in a YAML list"),
    ],
)
def test_a_combination_that_cannot_be_used_stops_all_before_the_first(arguments, expected):
    with pytest.raises(InputError, match=expected):
        grid(arguments)


def test_a_name_is_of_the_parameters_and_of_what_the_run_begins_from():
    run = {"train.learning_rate": 1e-4, "train.seed": 0}
    name = name_of(run, "base")
    assert name.startswith("1e-4,0_")
    assert name == name_of(dict(reversed(run.items())), "base")
    assert name != name_of(run, "another base")
    assert name != name_of(run | {"train.seed": 1}, "base")
    assert name[7:] != name_of({"train.learning_rate": 1e-4, "evaluate.seed": 0}, "base")[7:]


@pytest.mark.parametrize("value", [0.00025, -0.1, "path:../model", [[0], [1], [0, 0]], None])
def test_a_name_is_short_and_one_that_git_and_dvc_take(value):
    name = name_of({"train.learning_rate": value, "train.seed": 10}, "base")
    assert len(name) <= 13
    assert re.fullmatch(r"\w[\w.,-]*_[0-9a-f]{6}", name)
    assert ".." not in name


def test_the_table_at_the_end_is_that_of_the_docs():
    assert SHOW in (ROOT / "docs/comparing.md").read_text().splitlines()
