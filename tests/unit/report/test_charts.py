"""The charts show what the tables say: the same figures, with their counts."""

from eagle.report.charts import _acceptance_chart, _category_chart
from eagle.report.story import bounds


def test_categories_are_drawn_with_the_pooled_tau_of_the_table():
    groups = {
        "long_replies": {"tau": 1.62, "tau_95": [1.5, 1.75], "steps": 1240},
        "one_prompt": {"tau": 2.31, "tau_95": None, "steps": 12},
    }
    chart = _category_chart(groups)
    for label in ("1.62 (1,240 steps)", "2.31 (12 steps)", "long replies"):
        assert label in chart
    assert bounds(groups["one_prompt"]["tau_95"]) == "no interval"


def test_positions_without_a_trial_are_left_out_of_the_chart():
    rates = [
        {"rate": 1.0, "accepted": 5, "of": 5, "wilson_95": [0.57, 1.0]},
        {"rate": None, "accepted": 0, "of": 0, "wilson_95": None},
    ]
    chart = _acceptance_chart(rates)
    assert "1.00 of 5" in chart
    assert "α1" not in chart
