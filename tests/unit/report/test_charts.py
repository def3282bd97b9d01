"""The charts show what the tables say: the same figures, with their counts."""

import os
import re

import pandas as pd

from eagle.report.charts import (
    PALETTE,
    Chart,
    _acceptance_chart,
    _break_even_chart,
    _category_chart,
    _learning_rate_chart,
)
from eagle.report.tables import acceptance_table, groups_table
from tests.conftest import ROOT

GROUPS = {
    "long_replies": {"tau": 1.62, "tau_95": [1.5, 1.75], "steps": 1240, "prompts": 9,
                     "speedup": 1.1, "speedup_95": [1.0, 1.2]},
    "one_prompt": {"tau": 2.31, "tau_95": None, "steps": 12, "prompts": 1, "speedup": 1.2,
                   "speedup_95": None},
}  # fmt: skip
RATES = [
    {"rate": 1.0, "accepted": 5, "of": 5, "wilson_95": [0.57, 1.0]},
    {"rate": None, "accepted": 0, "of": 0, "wilson_95": None},
]


def test_categories_are_drawn_with_the_figures_of_the_table():
    svg = _category_chart(GROUPS).svg
    rows = groups_table({"by_category": GROUPS, "by_turn": {}}).rows
    for name, _prompts, steps, tau, interval, *_ in rows:
        assert name in svg and "_" not in name
        assert f"{tau} ({steps} steps)" in svg
        assert interval == "no interval" or "–" in interval


def test_positions_without_a_trial_are_left_out_of_chart_and_table():
    svg = _acceptance_chart(RATES).svg
    assert "1.00" in svg and "5 of 5" in svg
    assert "α1" not in svg
    rows = acceptance_table({"alpha": RATES, "acceptance_by_depth": RATES}).rows
    assert [row[0] for row in rows] == ["α0, chain of five", "token 1 deep, decoder measured"]


def test_break_even_is_drawn_for_chains_alone():
    rows = [
        {"decoder": "tree of 4, 1 deep", "tau": 9.0, "break_even_tau": 8.0},
        {"decoder": "chain of 2", "tau": 1.5, "break_even_tau": 1.2},
        {"decoder": "chain of 1", "tau": 1.4, "break_even_tau": 1.1},
    ]
    svg = _break_even_chart(rows).svg
    assert "9" not in re.findall(r">([\d.]+)<", svg)
    assert {"1", "2"} <= set(re.findall(r">([\d.]+)<", svg))


def test_a_long_history_is_thinned_and_a_chart_has_one_title_and_the_pages_colours():
    history = pd.DataFrame({"update": range(100_000), "learning_rate": [1e-4] * 100_000})
    chart: Chart = _learning_rate_chart(history)
    assert len(chart.svg) < 50_000
    assert chart.svg.count("<title>") == chart.svg.count('role="img"') == 1
    assert not re.search(r"#[0-9a-f]{6}", chart.on_page)
    frame = (ROOT / "resources/pages/frame.html.jinja").read_text()
    for name, colour in PALETTE.items():
        found = re.findall(rf"--{name}: (#[0-9a-f]{{6}})", frame)
        assert len(found) == 2  # by light and by dark
        assert found[0] == colour


def test_drawing_changes_no_font_of_programs_that_are_started_later(monkeypatch):
    history = pd.DataFrame({"update": [1, 2], "learning_rate": [1e-4, 1e-4]})
    for value in ("fonts of the user", None):
        if value:
            monkeypatch.setenv("FONTCONFIG_FILE", value)
        else:
            monkeypatch.delenv("FONTCONFIG_FILE", raising=False)
        _learning_rate_chart(history)
        assert os.environ.get("FONTCONFIG_FILE") == value
