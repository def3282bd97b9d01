"""The grid of a sweep, and the names of its runs."""

import pytest

from eagle.errors import InputError
from tests.conftest import ROOT
from tools.sweep import grid, name_of


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
    assert name.startswith("train.learning_rate=0.0001,train.seed=0-")
    assert name == name_of(dict(reversed(run.items())), "base").replace(
        "train.seed=0,train.learning_rate=0.0001", "train.learning_rate=0.0001,train.seed=0"
    )
    assert name != name_of(run, "another base")
    assert name != name_of(run | {"train.seed": 1}, "base")
