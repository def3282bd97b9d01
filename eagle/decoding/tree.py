"""Trees of drafted tokens: static shapes, and trees grown anew in each step.

A tree of T rows: row 0 is its root, the last token that stands; every other row is a drafted
token that continues its parent. Rows go level by level, so parents come before their children and
the children of one row, best first, side by side. A chain is the tree without branches.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from eagle.errors import InputError

Ranks = tuple[int, ...]
"""A drafted token by the ranks that lead to it: (0, 2) is the third best token after the best."""

NAMED = {
    # SafeAILab/EAGLE, model/choices.py: the tree of the paper's tables, 26 tokens verified
    "mc_sim_7b_63": (
        "0 1 2 3  00 01 02 10 11 20 21 30  000 001 002 010 011 020 021 100  0000 0001 0002 "
        "00000 00001"
    )
}
"""Static trees by name, a digit a rank."""


class Level(NamedTuple):
    """The rows of one depth that have children: what the draft reads in one forward."""

    rows: list[int]
    """Their numbers R in the tree."""
    picked: Tensor
    """Where they stand among all rows of their depth, int64 [R]."""
    parents: Tensor
    """Where each one's parent stands in the level before, int64 [R]."""
    children: Tensor
    """Where the children stand in the flattened candidates [R, width], int64."""
    seen: Tensor
    """Which rows with children, of this level and those before, each sees: bool [R, those]."""
    width: int
    """Most children of a row."""


class Tree:
    """Which row continues which.

    Args:
        parents: of every row; the root's is -1.
    """

    def __init__(self, parents: Sequence[int]):
        self.parents = list(parents)

    @classmethod
    def chain(cls, length: int) -> "Tree":
        """`length` drafted tokens, each continuing the one before."""
        return cls(range(-1, length))

    @classmethod
    def from_paths(cls, paths: Sequence[Sequence[int]]) -> "Tree":
        """A static tree from its drafted tokens' paths.

        Raises:
            InputError: no path, one without its parent or without the better token beside it, or
                one given twice.
        """
        ordered = sorted((tuple(path) for path in paths), key=lambda path: (len(path), path))
        rows = {(): 0}
        if not ordered or not ordered[0]:
            raise InputError("a tree of drafted tokens needs paths of one rank or more, as [0]")
        for path in ordered:
            if path in rows:
                raise InputError(f"tree: node {list(path)} is given twice")
            if path[:-1] not in rows:
                raise InputError(
                    f"tree: node {list(path)} is an orphan: its parent {list(path[:-1])} is not in "
                    "the tree; add it or leave out the node"
                )
            better = (*path[:-1], path[-1] - 1)
            if path[-1] and better not in rows:
                raise InputError(
                    f"tree: node {list(path)} stands without node {list(better)}; ranks beside "
                    "one another are 0, 1, 2, …"
                )
            rows[path] = len(rows)
        return cls([-1, *(rows[path[:-1]] for path in ordered)])

    @classmethod
    def named(cls, name: str) -> "Tree":
        return cls.from_paths([[int(rank) for rank in path] for path in NAMED[name].split()])

    def __len__(self) -> int:
        """Rows, the root included: tokens verified in one forward."""
        return len(self.parents)

    @cached_property
    def depths(self) -> list[int]:
        """Of every row; the root's is 0."""
        depths = [0]
        for parent in self.parents[1:]:
            depths.append(depths[parent] + 1)
        return depths

    @cached_property
    def depth(self) -> int:
        """Drafted tokens on the longest path."""
        return self.depths[-1]

    @cached_property
    def is_chain(self) -> bool:
        return self.depth == len(self) - 1

    @cached_property
    def children(self) -> list[list[int]]:
        """Of every row, best first."""
        children: list[list[int]] = [[] for _ in self.parents]
        for row, parent in enumerate(self.parents[1:], start=1):
            children[parent].append(row)
        return children

    @cached_property
    def seen(self) -> Tensor:
        """Which rows each row sees, its ancestors and itself: bool [T, T]."""
        seen = torch.eye(len(self), dtype=torch.bool)
        rows = torch.arange(len(self))
        ancestors = parents = torch.tensor(self.parents).clamp(min=0)
        for _ in range(self.depth):
            seen[rows, ancestors] = True
            ancestors = parents[ancestors]
        return seen

    @cached_property
    def levels(self) -> list[Level]:
        """The rows with children, the root's level first."""
        levels: list[Level] = []
        before: list[int] = []
        for depth in range(self.depth):
            deep = [row for row, d in enumerate(self.depths) if d == depth]
            rows = [row for row in deep if self.children[row]]
            picked = [deep.index(row) for row in rows]
            at = [levels[-1].rows.index(self.parents[row]) if levels else 0 for row in rows]
            before = before + rows
            width = max(len(self.children[row]) for row in rows)
            children = [
                i * width + rank
                for i, row in enumerate(rows)
                for rank in range(len(self.children[row]))
            ]
            indices = (torch.tensor(places) for places in (picked, at, children))
            levels.append(Level(rows, *indices, self.seen[rows][:, before], width))
        return levels

    @cached_property
    def paths(self) -> list[Ranks]:
        """Of every drafted row: what `from_paths` makes the tree from."""
        paths: list[Ranks] = [()]
        for row, parent in enumerate(self.parents[1:], start=1):
            paths.append((*paths[parent], self.children[parent].index(row)))
        return paths[1:]

    def path(self, row: int) -> list[int]:
        """Rows from the root to this one."""
        path = [row]
        while path[-1]:
            path.append(self.parents[path[-1]])
        return path[::-1]


class DynamicTree(NamedTuple):
    """How EAGLE-2 (arXiv 2406.16858, section 4) grows a tree anew in each step.

    From each of a level's `top_k` most likely tokens the `top_k` best continuations are drafted;
    of all that were drafted, the most likely stay. "Likely" is the product of the draft's
    probabilities along the path.
    """

    tokens: int
    """Tokens verified in one forward, the root included."""
    depth: int
    """Levels of drafted tokens, each one draft forward."""
    top_k: int
