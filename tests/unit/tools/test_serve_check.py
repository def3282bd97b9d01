"""When an engine counts as agreeing with our chain."""

import sys
from pathlib import Path

import pytest

from eagle.decoding.speculative import Generation
from eagle.errors import InputError
from tools.serve_check import (
    DRAFT_LENGTH,
    PROGRAMS,
    acceptance_rows,
    answer_of,
    engine_answers,
    engine_of,
)
from tools.sglang_decode import at_least

STEPS = [[0, 1, 2, 0, 0], [5, 0, 0, 1], [2, 0, 3, 0, 1, 0], [0, 0, 0, 1], [1, 4, 0, 0], [0, 2, 0]]


def answers(steps: list[list[int]]) -> list[dict]:
    return [answer_of(Generation([1], 0.0, 0.0, len(row), row)) for row in steps]


def test_steps_are_counted_as_engines_count_them():
    (answer,) = answers([[0, 1, 5, 2]])
    assert answer["drafts"] == 4
    assert answer["accepted"] == [3, 2, 1, 1, 1]


def test_the_same_acceptance_agrees_position_by_position():
    ours = answers(STEPS)
    rows = acceptance_rows("float32", ours, ours)
    assert [row["position"] for row in rows] == [1, 2, 3, 4, 5][:DRAFT_LENGTH]
    assert rows[0]["ours"] == rows[0]["engine"] == 11 / 26
    assert all(row["inside"] for row in rows)


@pytest.mark.parametrize("change", [lambda count: 0, lambda count: count + 2])
def test_a_draft_that_the_engine_runs_otherwise_is_seen(change):
    other = [[change(count) for count in row] for row in STEPS]
    rows = acceptance_rows("float32", answers(STEPS), answers(other))
    assert not rows[0]["inside"]


def test_an_engine_that_does_not_draft_is_an_error():
    with pytest.raises(InputError, match="the engine drafted nothing in float32"):
        acceptance_rows("float32", answers(STEPS), answers([[]]))


def test_an_engine_that_is_absent_or_fails_is_one_message(capsys):
    with pytest.raises(InputError, match="/absent/python: cannot be run .*ENGINE_PYTHON names"):
        engine_of(Path("/absent/python"))
    with pytest.raises(InputError, match="has neither vllm nor sglang; install one of them"):
        engine_of(Path(sys.executable))
    for engine in PROGRAMS:
        with pytest.raises(InputError, match="ended with exit code 1; its messages are printed"):
            engine_answers(Path(sys.executable), engine, Path("draft"), [[1]], "float32")
        assert f"No module named '{engine}'" in capsys.readouterr().err


def test_sglangs_histogram_is_counted_as_vllm_counts():
    for steps in STEPS:
        (answer,) = answers([steps])
        histogram = [steps.count(accepted) for accepted in range(max(steps) + 1)]
        assert at_least(histogram, DRAFT_LENGTH) == answer["accepted"]
