"""Trees of drafted tokens: their shape, which rows see which, and invalid shapes."""

import pytest
import torch

from eagle.decoding.tree import NAMED, Tree
from eagle.errors import InputError


def test_the_papers_tree_has_its_25_nodes():
    tree = Tree.named("mc_sim_7b_63")
    assert len(tree) == 26
    assert [tree.depths.count(depth) for depth in range(6)] == [1, 4, 8, 8, 3, 2]
    assert sum(not children for children in tree.children) == 15  # leaves
    assert len(tree.levels) == 5  # draft forwards
    assert list(NAMED) == ["mc_sim_7b_63"]


@pytest.mark.parametrize("tree", [Tree.chain(4), Tree.named("mc_sim_7b_63")])
def test_every_row_sees_its_path_and_nothing_else(tree):
    for row in range(len(tree)):
        path = tree.path(row)
        assert path[0] == 0
        assert path[-1] == row
        assert tree.seen[row].nonzero()[:, 0].tolist() == path
        assert tree.depths[row] == len(path) - 1
    for level in tree.levels:
        before = [row for row in range(level.rows[-1] + 1) if tree.children[row]]
        assert torch.equal(level.seen, tree.seen[level.rows][:, before])


def test_levels_give_every_row_its_own_candidate():
    """Candidate r of a row is its child of rank r: paths as candidates give the tree's paths."""
    tree = Tree.named("mc_sim_7b_63")
    paths, newest = [""], [""]
    for level in tree.levels:
        rows = [newest[i] for i in level.picked]
        assert rows == [paths[row] for row in level.rows]
        candidates = [path + str(rank) for path in rows for rank in range(level.width)]
        newest = [candidates[i] for i in level.children]
        paths += newest
    assert paths[1:] == NAMED["mc_sim_7b_63"].split()
    for level, before in zip(tree.levels[1:], tree.levels, strict=False):
        parents = [before.rows[i] for i in level.parents]
        assert parents == [tree.parents[row] for row in level.rows]


def test_the_order_of_the_paths_does_not_matter():
    assert Tree.from_paths([[1], [0, 0], [0]]).parents == [-1, 0, 0, 1]
    assert Tree.from_paths([[0], [0, 0]]).parents == Tree.chain(2).parents


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        ([[0], [1, 0]], r"node \[1, 0\] is an orphan: its parent \[1\] is not in the tree"),
        ([[0], [2]], r"node \[2\] needs node \[1\], which is not in the tree"),
        ([[0], [0]], r"node \[0\] is given twice"),
        ([], "needs paths of one rank or more"),
        ([[]], "needs paths of one rank or more"),
    ],
)
def test_an_invalid_tree_is_refused(paths, expected):
    with pytest.raises(InputError, match=expected):
        Tree.from_paths(paths)
