"""The paths that make up a static tree of drafted tokens, by rank."""

from collections.abc import Sequence

from eagle.errors import InputError

Ranks = tuple[int, ...]
"""The path to a drafted token, by rank: (0, 2) is the third most likely token after the most likely
one."""


def ordered_paths(paths: Sequence[Sequence[int]]) -> list[Ranks]:
    """The paths of a tree's drafted tokens, by depth, siblings by rank.

    Raises:
        InputError: no path, a path whose parent or whose more likely sibling is missing, or a path
            given twice.
    """
    ordered = sorted((tuple(path) for path in paths), key=lambda path: (len(path), path))
    if not ordered or not ordered[0]:
        raise InputError("a tree of drafted tokens needs paths of one rank or more, as [0]")
    known: set[Ranks] = {()}
    for path in ordered:
        if path in known:
            raise InputError(f"tree: node {list(path)} is given twice")
        if path[:-1] not in known:
            raise InputError(
                f"tree: node {list(path)} is an orphan: its parent {list(path[:-1])} is not in "
                "the tree; add it or leave out the node"
            )
        better = (*path[:-1], path[-1] - 1)
        if path[-1] and better not in known:
            raise InputError(
                f"tree: node {list(path)} needs node {list(better)}, which is not in the tree; "
                "the ranks of siblings are 0, 1, 2, …"
            )
        known.add(path)
    return ordered
