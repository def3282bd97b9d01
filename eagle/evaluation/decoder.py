"""The decoder that is measured: the one that params.yaml states, or the fastest by forecast."""

from typing import NamedTuple

from eagle.config import Evaluate
from eagle.decoding.speculative import Launch
from eagle.decoding.tree import DynamicTree, Tree
from eagle.errors import InputError
from eagle.evaluation.forecast import Forecast, forecast_on
from eagle.evaluation.models import Models
from eagle.tokens.token_set import TokenSet


class Decoder(NamedTuple):
    kind: str
    """chain, static_tree or dynamic_tree."""
    shape: Tree | DynamicTree
    """What it drafts in each step."""
    forecasts: list[Forecast]
    """The shapes it was chosen from, the chosen one first; empty when it was stated."""

    def describe(self) -> dict:
        """Kind, name in words, and what makes up its shape."""
        kind, shape = self.kind, self.shape
        if isinstance(shape, DynamicTree):
            name = f"a tree of {shape.tokens - 1} tokens grown in each step"
            return {"kind": kind, "name": name, **shape._asdict()}
        if kind == "chain":
            name = f"a chain of {shape.depth}"
            return {"kind": kind, "name": name, "draft_length": shape.depth}
        return {
            "kind": kind,
            "name": f"a static tree of {len(shape) - 1} tokens, {shape.depth} deep",
            "tokens": len(shape),
            "depth": shape.depth,
            "paths": [list(path) for path in shape.paths],
        }


def stated_decoder(settings: Evaluate) -> Decoder | None:
    """The decoder that the settings state; None if it is to be chosen.

    Raises:
        InputError: static_tree is no tree.
    """
    if settings.decoder == "dynamic_tree":
        shape = DynamicTree(settings.tree_tokens, settings.tree_depth, settings.tree_top_k)
        return Decoder(settings.decoder, shape, [])
    stated = settings.draft_length if settings.decoder == "chain" else settings.static_tree
    if stated == "auto":
        return None
    if settings.decoder == "chain":
        shape = Tree.chain(stated)
    elif isinstance(stated, str):
        shape = Tree.named(stated)
    else:
        shape = Tree.from_paths(stated)
    return Decoder(settings.decoder, shape, [])


def choose_decoder(kind: str, models: Models, held_out: TokenSet, launch: Launch) -> Decoder:
    """The fastest chain or static tree, by a forecast on replies to held-out conversations.

    Args:
        launch: as of `Decoders`.

    Raises:
        InputError: the replies are too short for a forecast, or every shape of that kind was timed
            as cheaper than a vanilla step.
    """
    forecasts = forecast_on(held_out, *models, kind == "chain", launch)
    chosen = fastest_sound(forecasts, chains=kind == "chain")
    if chosen is None:
        raise InputError(
            f"every {kind.replace('_', ' ')} was timed at less than a vanilla step, which a "
            "draft-and-verify step cannot take: the machine was disturbed; evaluate again with "
            "nothing else running, or state evaluate.draft_length or evaluate.static_tree"
        )
    others = [forecast for forecast in forecasts if forecast is not chosen]
    return Decoder(kind, chosen.shape, [chosen, *others])


def fastest_sound(forecasts: list[Forecast], chains: bool) -> Forecast | None:
    """The first chain, or tree with branches, whose step costs no less than a vanilla step.

    A draft-and-verify step is a verifier forward and more. Where it was timed as cheaper, the clock
    was disturbed, and the shape would be chosen for that.

    Args:
        forecasts: in the order of their speed-up.
    """
    return next(
        (
            forecast for forecast in forecasts
            if forecast.shape.is_chain == chains and forecast.step_cost >= 1
        ),
        None,
    )  # fmt: skip
