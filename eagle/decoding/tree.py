"""Trees of drafted tokens: static shapes, and trees that are grown anew in each step.

Shapes: T rows of a tree, R rows of one level that have children, D depth, W most children of a row.

Row 0 of a tree is its root, the last token of the text so far; every other row is a drafted token
that continues its parent. Rows are ordered by depth, so parents come before their children. The
children of one row are next to each other, most likely first. A chain is a tree without branches.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from eagle.decoding.paths import Ranks, ordered_paths

NAMED = {
    # SafeAILab/EAGLE, model/choices.py: the tree of the paper's tables, 26 tokens verified
    "mc_sim_7b_63": (
        "0 1 2 3  00 01 02 10 11 20 21 30  000 001 002 010 011 020 021 100  0000 0001 0002 "
        "00000 00001"
    )
}
"""Static trees by name; each group of digits is a path, each digit a rank."""


class Level(NamedTuple):
    """The rows of one depth that have children: what the draft reads in one forward."""

    rows: list[int]
    """Their numbers in the tree, R of them."""
    picked: Tensor
    """Their indices among all rows of their depth, int64 [R]."""
    parents: Tensor
    """The index of each one's parent in `rows` of the level before, int64 [R]."""
    children: Tensor
    """The indices of all their children in the flattened candidates [R, width], int64."""
    seen: Tensor
    """Which rows with children, of the levels from the root's to this one, each row sees: bool [R,
    those]."""
    width: int
    """The largest number of children of a row."""

    def to(self, device: torch.device) -> "Level":
        picked, parents, children, seen = (
            tensor.to(device) for tensor in (self.picked, self.parents, self.children, self.seen)
        )
        return Level(self.rows, picked, parents, children, seen, self.width)


class TreeTensors(NamedTuple):
    """A tree on the device: what verifying it and accepting from it look up."""

    parents: Tensor
    """Of every row, int64 [T]; the root's is itself."""
    depths: Tensor
    """Of every row, int64 [T]."""
    paths: Tensor
    """The rows from the root to each row, int64 [T, D + 1]; a shorter path repeats its end."""
    seen: Tensor
    """Which rows each row sees, its ancestors and itself: bool [T, T]."""
    children: Tensor
    """Of every row, int64 [T, W], most likely first; -1 where there are no more."""


def tree_tensors(parents: Tensor, depths: Tensor, depth: int, width: int) -> TreeTensors:
    """What follows from parents and depths, each [T], without a look at the numbers.

    Args:
        parents: the root's is 0.
        depth: at least that of the deepest row, D.
        width: at least the most children of a row, W.
    """
    rows = torch.arange(len(parents), device=parents.device)
    ancestors = [rows]  # the j-th: j steps up
    for _ in range(depth):
        ancestors.append(parents[ancestors[-1]])
    up = (depths[:, None] - torch.arange(depth + 1, device=parents.device)).clamp(min=0)
    paths = torch.stack(ancestors, dim=1).gather(1, up)
    seen = torch.zeros(len(rows), len(rows), dtype=torch.bool, device=parents.device)
    seen = seen.scatter(1, paths, True)
    siblings = (parents[:, None] == parents) & (rows > 0)  # the root is nobody's child
    ranks = siblings.tril(-1).sum(1)
    children = torch.full((len(rows), width), -1, device=parents.device)
    children[parents[1:], ranks[1:]] = rows[1:]
    return TreeTensors(parents, depths, paths, seen, children)


class Tree:
    """Says which row continues which.

    Args:
        parents: the parent of every row; the root's is -1.
    """

    def __init__(self, parents: Sequence[int]):
        self.parents = list(parents)

    @classmethod
    def chain(cls, length: int) -> "Tree":
        """`length` drafted tokens, each of which continues the one before."""
        return cls(range(-1, length))

    @classmethod
    def from_paths(cls, paths: Sequence[Sequence[int]]) -> "Tree":
        """A static tree from the paths of its drafted tokens, in any order.

        Raises:
            InputError: as `ordered_paths`.
        """
        ordered = ordered_paths(paths)
        rows = {path: row for row, path in enumerate([(), *ordered])}
        return cls([-1, *(rows[path[:-1]] for path in ordered)])

    @classmethod
    def named(cls, name: str) -> "Tree":
        """One of NAMED."""
        return cls.from_paths([[int(rank) for rank in path] for path in NAMED[name].split()])

    def __len__(self) -> int:
        """Number of rows, the root included: tokens verified in one forward."""
        return len(self.parents)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tree) and self.parents == other.parents

    def __hash__(self) -> int:
        return hash(tuple(self.parents))

    @cached_property
    def depths(self) -> list[int]:
        """The depth of every row; the root's is 0."""
        depths = [0]
        for parent in self.parents[1:]:
            depths.append(depths[parent] + 1)
        return depths

    @cached_property
    def depth(self) -> int:
        """Number of drafted tokens on the longest path."""
        return self.depths[-1]

    @cached_property
    def is_chain(self) -> bool:
        return self.depth == len(self) - 1

    @cached_property
    def children(self) -> list[list[int]]:
        """The children of every row, most likely first."""
        children: list[list[int]] = [[] for _ in self.parents]
        for row, parent in enumerate(self.parents[1:], start=1):
            children[parent].append(row)
        return children

    @cached_property
    def seen(self) -> Tensor:
        """Which rows each row sees, its ancestors and itself: bool [T, T]."""
        return self.tensors(torch.device("cpu")).seen

    @cached_property
    def levels(self) -> list[Level]:
        """The rows with children, the root's level first."""
        levels: list[Level] = []
        before: list[int] = []
        for depth in range(self.depth):
            of_depth = [row for row, d in enumerate(self.depths) if d == depth]
            rows = [row for row in of_depth if self.children[row]]
            picked = [of_depth.index(row) for row in rows]
            parents = [levels[-1].rows.index(self.parents[row]) if levels else 0 for row in rows]
            before = before + rows
            width = max(len(self.children[row]) for row in rows)
            children = [
                i * width + rank
                for i, row in enumerate(rows)
                for rank in range(len(self.children[row]))
            ]
            indices = (torch.tensor(numbers) for numbers in (picked, parents, children))
            levels.append(Level(rows, *indices, self.seen[rows][:, before], width))
        return levels

    @cached_property
    def paths(self) -> list[Ranks]:
        """The path of every drafted row, in the form that `from_paths` reads."""
        paths: list[Ranks] = [()]
        for row, parent in enumerate(self.parents[1:], start=1):
            paths.append((*paths[parent], self.children[parent].index(row)))
        return paths[1:]

    @property
    def size(self) -> int:
        """Number of rows, the root included: tokens verified in one forward."""
        return len(self.parents)

    @cached_property
    def width(self) -> int:
        """The most children of a row."""
        return max(len(children) for children in self.children)

    def tensors(self, device: torch.device) -> TreeTensors:
        """The tree on a device."""
        parents, depths = (
            torch.tensor(numbers, device=device) for numbers in (self.parents, self.depths)
        )
        return tree_tensors(parents.clamp(min=0), depths, self.depth, self.width)

    def path(self, row: int) -> list[int]:
        """The rows from the root to this one."""
        path = [row]
        while path[-1]:
            path.append(self.parents[path[-1]])
        return path[::-1]


class DynamicTree(NamedTuple):
    """The shape of a tree that EAGLE-2 (arXiv 2406.16858, section 4) grows anew in each step.

    In each level the `top_k` most likely rows are continued, each by its `top_k` most likely
    tokens; of all drafted rows, the most likely ones become the tree. How likely a row is, is the
    product of the draft's probabilities along its path.
    """

    tokens: int
    """Tokens verified in one forward, the root included; no more than are drafted."""
    depth: int
    """Levels of drafted tokens; each takes one draft forward."""
    top_k: int

    @property
    def drafted(self) -> int:
        """Tokens drafted in all levels, of which the most likely ones become the tree."""
        return self.top_k + (self.depth - 1) * self.top_k**2

    @property
    def width(self) -> int:
        """The most children of a row."""
        return self.top_k

    @property
    def size(self) -> int:
        """Number of rows of the tree, the root included."""
        return 1 + min(self.tokens - 1, self.drafted)
