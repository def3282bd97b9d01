"""The decoder that the settings state."""

import pytest

from eagle.decoding.tree import DynamicTree, Tree
from eagle.errors import InputError
from eagle.evaluation.decoder import fastest_sound, stated_decoder
from eagle.evaluation.forecast import Forecast
from tests.tiny import settings


@pytest.mark.parametrize(
    ("values", "shape", "name"),
    [
        ({"decoder": "chain", "draft_length": 3}, Tree.chain(3), "a chain of 3"),
        (
            {"decoder": "static_tree", "static_tree": "mc_sim_7b_63"},
            Tree.named("mc_sim_7b_63"),
            "a static tree of 25 tokens, 5 deep",
        ),
        (
            {"decoder": "static_tree", "static_tree": [[0], [1], [0, 0]]},
            Tree.from_paths([[0], [1], [0, 0]]),
            "a static tree of 3 tokens, 2 deep",
        ),
    ],
)
def test_a_stated_shape_is_not_chosen(values, shape, name):
    decoder = stated_decoder(settings("evaluate", **values))
    assert decoder.shape.parents == shape.parents
    assert decoder.describe()["name"] == name
    assert decoder.forecasts == []


def test_a_dynamic_tree_has_three_settings():
    values = {"tree_tokens": 8, "tree_depth": 2, "tree_top_k": 3}
    decoder = stated_decoder(settings("evaluate", decoder="dynamic_tree", **values))
    assert decoder.shape == DynamicTree(tokens=8, depth=2, top_k=3)
    assert decoder.describe()["name"] == "a tree of 7 tokens grown in each step"


@pytest.mark.parametrize("values", [{"draft_length": "auto"}, {"static_tree": "auto"}])
def test_auto_is_left_to_the_forecast(values):
    kind = "chain" if "draft_length" in values else "static_tree"
    assert stated_decoder(settings("evaluate", decoder=kind, **values)) is None


def test_an_invalid_tree_is_refused():
    orphan = settings("evaluate", decoder="static_tree", static_tree=[[0], [1, 0]])
    with pytest.raises(InputError, match="is an orphan"):
        stated_decoder(orphan)


def test_a_shape_on_a_step_cheaper_than_vanillas_is_never_chosen():
    """The clock was disturbed in it: such a step is a verifier forward and more."""
    tree = Tree.from_paths([[0], [1]])
    forecasts = [
        Forecast("fault", Tree.from_paths([[0], [1], [2]]), 2.0, 0.9),
        Forecast("sound", tree, 1.6, 1.2),
        Forecast("chain, fault", Tree.chain(2), 1.5, 0.99),
        Forecast("chain", Tree.chain(3), 1.5, 1.1),
    ]
    assert fastest_sound(forecasts, chains=False).name == "sound"
    assert fastest_sound(forecasts, chains=True).name == "chain"
    assert fastest_sound(forecasts[:1], chains=False) is None
