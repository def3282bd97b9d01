"""All files that the project and DVC's cache keep, each with the hash that it should have."""

import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from dvc.repo import Repo
from dvc.utils import dict_sha256
from dvc.utils.serialize import YAMLFileCorruptedError, load_yaml
from dvc_data.hashfile.tree import Tree
from dvc_objects.errors import ObjectFormatError

from eagle.checksums import read_checksums
from eagle.files import CHECKSUMS, all_below, entries
from eagle.replies.journal_line import content_of
from eagle.training.on_disk import cache_folder, find_states

RUNS = Path("runs")
WRITTEN = (Path("resources"), Path("models"), Path("results"), RUNS)
"""Folders below which stages and tools write."""


class Damaged(NamedTuple):
    """A file that is not as it was written."""

    path: Path
    why: str
    mend: str
    """The command."""


class Kept(NamedTuple):
    """A file, and the hash that it should have."""

    path: Path
    algorithm: str
    """md5 or sha256."""
    expected: str
    """Its hash in hexadecimal, or the beginning of it."""
    by: str
    """What says so."""
    mend: Callable[[set[Path]], str]
    """The command, by the paths of all that is damaged."""


def kept_files(repo: Repo) -> Iterator[Kept | Damaged]:
    """All of them; Damaged where no hash is needed to see it."""
    outputs = _Outputs(repo)
    yield from outputs.files()
    yield from outputs.objects()
    yield from _runs_of_stages(repo)
    covered = set(outputs.covered)
    yield from (kept for kept in _in_lists(repo) if kept.path not in covered)
    for run in entries(RUNS):
        for state in find_states(run):
            beginning = state.stem.split("-")[-1]
            # training goes on from the one before it
            yield Kept(state, "sha256", beginning, "its name", _always(f"rm -f {_words([state])}"))
    yield from _journals()


def _always(command: str) -> Callable[[set[Path]], str]:
    return lambda _damaged: command


class _Outputs:
    """The outputs in dvc.lock and in files of `dvc add`, and the objects in DVC's cache."""

    def __init__(self, repo: Repo):
        self.cache = repo.cache.local
        self.outs = [out for out in repo.index.outs if out.hash_info and out.protocol == "local"]
        self.covered: dict[Path, str] = {}
        """The object of each file."""
        self.users: dict[str, list[tuple[Path, object]]] = {}
        """The files that are copies of an object or links to it, and their outputs."""

    def files(self) -> Iterator[Kept | Damaged]:
        for out in self.outs:
            path = _relative(out.fs_path)
            for file, object in self._objects_of(out, path).items():
                self.covered[file] = object
                self.users.setdefault(object, []).append((file, out))
                if file.is_file():
                    yield Kept(file, "md5", object, "dvc.lock", self._mended(object))
                elif path.exists():
                    yield Damaged(file, "is missing", f"dvc checkout {path}")

    def _objects_of(self, out, path: Path) -> dict[Path, str]:
        """The object of each file of an output."""
        if not out.hash_info.isdir:
            return {path: out.hash_info.value}
        self.users.setdefault(out.hash_info.value, []).append((path, out))
        try:
            tree = Tree.load(self.cache, out.hash_info)
        except (FileNotFoundError, ObjectFormatError):
            return {}  # if the object is there, it is damaged and named with the others
        return {path.joinpath(*key): info.value for key, _, info in tree}

    def objects(self) -> Iterator[Kept]:
        for path in all_below(Path(self.cache.path)):
            object = path.parent.name + path.name
            md5 = object.removesuffix(".dir")
            if len(md5) == 32 and path.is_file():
                yield Kept(_relative(path), "md5", md5, "its name", self._mended(object))

    def _mended(self, object: str) -> Callable[[set[Path]], str]:
        """How an object and its copies are mended.

        DVC keeps an object that is there, whatever its bytes are, so it must be removed first.
        """
        copy = _relative(self.cache.oid_to_path(object))

        def command(damaged: set[Path]) -> str:
            users = self.users.get(object, [])
            files = [file for file, _ in users if file in damaged]
            owners = dict.fromkeys(out for _, out in users)
            if copy.exists() and copy not in damaged:
                outs = dict.fromkeys(str(_relative(out.fs_path)) for _, out in users)
                return f"rm -f {_words(files)} && dvc checkout {_words(outs)}"
            remove = f"rm -f {_words([*files, copy])}"
            if not owners:  # of another commit or experiment, which makes it again
                return remove
            stages = _words(dict.fromkeys(_address(out) for out in owners))
            if not files:
                return f"{remove} && dvc commit --force {stages}"
            made = all(out.stage.cmd for out in owners)
            return f"{remove} && dvc {'repro' if made else 'pull'} {stages}"

        return command


def _address(out) -> str:
    """How DVC's commands name the stage of an output."""
    return out.stage.name if out.stage.cmd else out.stage.relpath


def _runs_of_stages(repo: Repo) -> Iterator[Damaged]:
    """DVC's notes on which inputs gave which outputs: the name is the hash of the content."""
    for path in filter(Path.is_file, all_below(Path(repo.stage_cache.cache_dir))):
        try:
            found = dict_sha256(load_yaml(str(path)), exclude=["size", "nfiles"])
        except (YAMLFileCorruptedError, AttributeError, TypeError):
            found = "that of no YAML"
        if found != path.name:
            path = _relative(path)
            why = f"the hash of its content is {found}, expected {path.name} by its name"
            yield Damaged(path, why, f"rm -f {_words([path])}")


def _in_lists(repo: Repo) -> Iterator[Kept | Damaged]:
    """The files that a CHECKSUMS lists."""
    found = {path for folder in (*WRITTEN, cache_folder()) for path in all_below(folder)}
    for path in sorted(path for path in found if path.name == CHECKSUMS):
        folder = path.parent
        mend = _always(
            f"git checkout -- {_words([folder])}"  # what ships with the project
            if repo.scm.is_tracked(str(path))
            else _mended_folder(folder)
        )
        hashes, damage = read_checksums(folder)
        yield from (Damaged(found.path, found.why, mend(set())) for found in damage)
        for file, sha256 in hashes.items():
            if file.is_file():
                yield Kept(file, "sha256", sha256, str(path), mend)
            else:
                why = f"is missing, and {path} lists it"
                yield Damaged(file, why, mend(set()))


def _mended_folder(folder: Path) -> str:
    """How a folder that is neither in a dvc.lock nor in git is made again."""
    run = next((path for path in (folder, folder.parent) if path.parent == RUNS), None)
    if run and (run / CHECKSUMS).exists():  # what it published stays
        return f"rm -rf {_words([run])}"
    if run:  # training makes it again
        return "dvc repro train"
    return f"rm -rf {_words([folder])}"  # features are computed again, uploads prepared again


def _journals() -> Iterator[Damaged]:
    for path in entries(RUNS, "replies-*.jsonl"):
        lines = path.read_bytes().splitlines(keepends=True)
        if damaged := sum(content_of(line) is None for line in lines):
            why = f"{damaged:,} of {len(lines):,} lines are damaged; their replies are made again"
            yield Damaged(path, why, "dvc repro regenerate_replies")


def _relative(path: str | Path) -> Path:
    return Path(os.path.relpath(path))


def _words(paths) -> str:
    return shlex.join(map(str, paths))
