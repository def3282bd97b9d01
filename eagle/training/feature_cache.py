"""Features and teacher of all documents on disk, for every run that needs the same.

Shapes: N tokens of all documents, N' of them taught, H hidden.
"""

import errno
import fcntl
import hashlib
import math
import mmap
import os
import shutil
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from eagle.checksums import damaged
from eagle.draft.vocabulary import Vocabulary
from eagle.errors import InputError
from eagle.files import (
    CHECKSUMS,
    hashes_of,
    make_folder,
    put_in_place,
    read_json,
    reserve,
    sync,
    write_checksums,
    write_json,
)
from eagle.tokens.token_set import TokenSet
from eagle.tracking import Progress
from eagle.training.distributed import barrier, gather, local_rank_and_world, rank_and_world
from eagle.training.features import compute_features, group_by_length, keep_in_step
from eagle.training.loss import Teacher, teach
from eagle.training.memory import FORWARD_TOKENS
from eagle.training.on_disk import LOCK, cache_folder
from eagle.verifier.verifier import Verifier


class CachedFeatures:
    """Features and teacher of all documents in memory-mapped files, in the order of the tokens.

    The name of a cache folder is the hash of what its content depends on, so all runs with the same
    verifier, tokens and precision share it: also runs on other machines, if the folder lies on a
    disk that they share and that passes locks (flock) between them (docs/remotes.md).
    """

    def __init__(
        self,
        tokens: TokenSet,
        verifier: Verifier,
        vocabulary: Vocabulary,
        verifier_hash: str,
        progress_seconds: float,
    ):
        """Map the files, and compute those that are missing; all ranks take part.

        Args:
            vocabulary: what the teacher's softmax runs over.
            verifier_hash: SHA-256 of the verifier's files.

        Raises:
            InputError: not enough disk space for them.
        """
        self.tokens, self.vocabulary = tokens, vocabulary
        self.device = verifier.head.device
        taught = tokens.taught()
        self.row = taught.cumsum(0) - 1  # row of a taught position in the teacher's files [N]
        width, head = verifier.head.shape[1], vocabulary.head
        states = _Files(
            _cache_path(verifier_hash, verifier.head.dtype, tokens.token_ids, tokens.bounds),
            {"features": ((len(taught), width), verifier.head.dtype)},
        )
        self.verifier_runs = states.fill(
            lambda maps: _run_verifier(*maps, tokens, verifier, progress_seconds)
        )
        (self.features,) = states.maps()
        teacher = _Files(
            _cache_path(states.folder.name, head.dtype, tokens.loss_mask, vocabulary.token_ids),
            {
                "mean": ((int(taught.sum()), width), head.dtype),
                "likeliest": ((int(taught.sum()),), torch.int32),
            },
        )
        teacher.fill(lambda maps: _run_head(*maps, self, taught, progress_seconds))
        self.mean, self.likeliest = teacher.maps()
        self._files = states, teacher  # locked as long as they are mapped
        self.seconds = states.seconds + teacher.seconds

    def prepare(self, documents: tuple[int, ...]) -> None:
        pass  # all documents are ready

    def of(self, documents: list[int], positions: list[Tensor]) -> tuple[Tensor, Teacher]:
        spans = [self.tokens.span(document) for document in documents]
        rows = [self.row[span][at] for span, at in zip(spans, positions, strict=True)]
        rows = torch.cat(rows)
        features = torch.cat([self.features[span] for span in spans])
        return (
            features.to(self.device, non_blocking=True),
            Teacher(
                self.mean[rows].to(self.device, non_blocking=True),
                self.likeliest[rows].long().to(self.device, non_blocking=True),
            ),
        )


class _Files:
    """Tensors in the files of one cache folder, which is complete or absent."""

    def __init__(self, folder: Path, shapes: dict[str, tuple[tuple[int, ...], torch.dtype]]):
        self.folder, self.shapes = folder, shapes
        self.lock: IO | None = None  # of the first process of each machine

    @property
    def seconds(self) -> float:
        return read_json(self.folder / "manifest.json")["seconds"]

    def maps(self) -> list[Tensor]:
        """The tensors, memory-mapped.

        Raises:
            InputError: another run has removed them to make room.
        """
        for name, (shape, dtype) in self.shapes.items():
            path = self._path(name)
            if not path.is_file() or path.stat().st_size != math.prod(shape) * dtype.itemsize:
                raise InputError(
                    f"{path}: was removed to make room for another run's features; start again"
                )
        return self._map(mmap.ACCESS_READ)

    def _map(self, access: int) -> list[Tensor]:
        """The tensors; torch.from_file, which opens for writing, cannot map a read-only cache.

        Args:
            access: mmap.ACCESS_READ or mmap.ACCESS_WRITE.
        """
        maps = []
        for name, (shape, dtype) in self.shapes.items():
            with self._path(name).open("rb" if access == mmap.ACCESS_READ else "r+b") as file:
                memory = mmap.mmap(file.fileno(), 0, access=access)
            with warnings.catch_warnings(action="ignore"):  # that it may only be read
                maps.append(torch.frombuffer(memory, dtype=dtype).view(shape))
        return maps

    def fill(self, write: Callable[[list[Tensor]], None]) -> bool:
        """Let `write` fill the tensors, all ranks of a machine together, if they are not there.

        Returns:
            Whether it did.

        Raises:
            InputError: not enough disk space, even without all other caches.
        """
        leads = local_rank_and_world()[0] == 0
        # every run has a name of its own, because another run may be filling the same cache
        answers = gather((self._is_intact(), uuid.uuid4().hex) if leads else None)
        # on all machines or on none, because all ranks compute together
        if all(answer[0] for answer in answers if answer):
            return False
        complete = self.folder
        intact, name = answers[rank_and_world()[0] - local_rank_and_world()[0]]
        if leads and not intact:
            self._put_aside()
        self.folder = complete.with_name(f".{name}.partial")
        try:
            self._fill(write, complete, leads)
        finally:
            if leads:
                shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = complete
        if leads:
            self._share()
        barrier()
        return True

    def _share(self) -> None:
        """Keep the cache from being removed, until this process ends."""
        with suppress(OSError):  # removed just now, which who maps it will find; or no locks here
            self.lock = (self.folder / LOCK).open()
            fcntl.flock(self.lock, fcntl.LOCK_SH)

    def _put_aside(self) -> None:
        """Free the name of a cache that is not intact. Another run may read it, maybe on another
        machine, whose memory maps end with a file that is removed here."""
        if self.lock is not None:
            self.lock.close()
        with suppress(OSError):  # it is not there
            os.replace(self.folder, self.folder.with_name(f".{uuid.uuid4().hex}.partial"))

    def _fill(self, write: Callable[[list[Tensor]], None], complete: Path, leads: bool) -> None:
        """Write the files in this partial folder, and give it the name `complete`."""
        started = time.monotonic()
        if leads:
            _remove_abandoned(complete.parent)
            make_folder(complete.parent)
            lock = _locked(self.folder)
            self._make_room()
            self._reserve()
        barrier()
        write(self._map(mmap.ACCESS_WRITE))
        barrier()
        if leads:
            seconds = time.monotonic() - started
            write_json(self.folder / "manifest.json", {"seconds": seconds})
            files = {name: sha for name, sha in hashes_of(self.folder).items() if name != LOCK}
            write_checksums(self.folder, files)
            for file in self.shapes:
                sync(self._path(file))
            try:
                put_in_place(self.folder, complete)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                # another run, or another machine or agent of this one, was first
            lock.close()

    def _is_intact(self) -> bool:
        """Whether the files are there with the bytes that were written.

        They take minutes to days to compute and many later runs read them, so a file that was
        truncated or changed must not be used.
        """
        if not (self.folder / CHECKSUMS).is_file():
            return False
        self._share()
        try:
            found = damaged(self.folder)
        except OSError as error:  # another run has removed them
            found = [error]
        if found:
            print(f"{found[0]}; the features are computed again", file=sys.stderr)
            return False
        with suppress(OSError):  # whoever may only read them does not say that they are in use
            os.utime(self.folder)  # the caches used last are removed last
        return True

    def _make_room(self) -> None:
        needed = sum(math.prod(shape) * dtype.itemsize for shape, dtype in self.shapes.values())
        others = _unused(self.folder.parent)
        removable = sum(size for _, size in others)
        free = shutil.disk_usage(self.folder).free
        enough = needed <= free + removable
        while enough and others and needed > shutil.disk_usage(self.folder).free:
            path, _ = others.pop(0)
            print(f"{path}: removed to make room for features", file=sys.stderr)
            _remove(path)
        if needed > shutil.disk_usage(self.folder).free:
            (rows, width), dtype = next(iter(self.shapes.values()))
            raise InputError(
                f"features of {rows:,} tokens x {width} x {dtype.itemsize} bytes need "
                f"{needed / 1e9:.1f} GB, {self.folder.parent} has {free / 1e9:.1f} GB free and "
                f"{removable / 1e9:.1f} GB of features that no run uses: set EAGLE_CACHE to a "
                "larger disk, take fewer conversations, or set train.features to replay"
            )

    def _reserve(self) -> None:
        for name, (shape, dtype) in self.shapes.items():
            if not reserve(self._path(name), math.prod(shape) * dtype.itemsize):
                print(
                    f"{self.folder.parent}: this file system cannot reserve room; if it becomes "
                    "full while features are computed, training is ended by SIGBUS",
                    file=sys.stderr,
                )

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.bin"


def _locked(partial: Path) -> IO:
    """A new partial cache, whose lock this process keeps until it ends, however it ends."""
    while True:
        partial.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):  # another run took it for abandoned before it was locked
            lock = (partial / LOCK).open("a+")
            with suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX)
            if (partial / LOCK).exists():
                return lock


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Whether no process has locked a cache; then none can meanwhile."""
    with ExitStack() as stack:
        try:
            # NFS gives an exclusive lock only on files opened to be written
            lock = stack.enter_context((folder / LOCK).open("a+"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = True
        except OSError:  # locked, another user's, or a file system without locks
            alone = False
        yield alone


def _unused(folder: Path) -> list[tuple[Path, int]]:
    """The caches that no process has locked and their bytes, the one unused for longest first."""
    found = []
    for path in folder.glob("[!.]*"):
        with _alone(path) as alone:
            if alone:
                size = sum(file.stat().st_size for file in path.iterdir())
                found.append((path.stat().st_mtime, path, size))
    return [(path, size) for _, path, size in sorted(found)]


def _remove(folder: Path) -> None:
    """Remove a cache that no process has locked."""
    with _alone(folder) as alone:
        if alone:
            shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # NFS keeps the folder of a file that is open
        folder.rmdir()


def _remove_abandoned(folder: Path) -> None:
    """Remove the partial caches of runs that were killed: no process has a lock on them."""
    for partial in folder.glob(".*.partial"):
        if (partial / LOCK).exists():
            _remove(partial)
        else:
            with suppress(OSError):  # not empty, or removed just now
                partial.rmdir()  # whoever is about to lock it makes it again


def _run_verifier(
    features: Tensor, tokens: TokenSet, verifier: Verifier, progress_seconds: float
) -> None:
    """Compute this rank's share of features [N, H]."""
    rank, world = local_rank_and_world()
    groups = group_by_length(tokens, list(range(len(tokens))), verifier)
    with Progress("features", len(features), "tokens", progress_seconds) as progress:
        for number, documents in enumerate(groups):
            lengths = [tokens.length(document) for document in documents]
            if number % world == rank:
                states = compute_features(tokens, verifier, documents).cpu()
                for document, part in zip(documents, states.split(lengths), strict=True):
                    features[tokens.span(document)] = part
            progress.advance(sum(lengths))
    most = math.ceil(len(groups) / world)
    keep_in_step(tokens, verifier, most - len(groups[rank::world]))


def _run_head(
    means: Tensor,
    likeliest: Tensor,
    cached: CachedFeatures,
    taught: Tensor,
    progress_seconds: float,
) -> None:
    """Compute this rank's share of the teacher's means [N', H] and tokens [N']."""
    rank, world = local_rank_and_world()
    positions = taught.nonzero()[:, 0]
    step = FORWARD_TOKENS[cached.device.type]
    with Progress("teacher", len(positions), "tokens", progress_seconds) as progress:
        for number, start in enumerate(range(0, len(positions), step)):
            rows = slice(start, start + step)
            if number % world == rank:
                states = cached.features[positions[rows]].to(cached.device)
                teacher = teach(states, cached.vocabulary)
                means[rows], likeliest[rows] = teacher.mean.cpu(), teacher.likeliest.int().cpu()
            progress.advance(len(positions[rows]))


def _cache_path(name: str, dtype: torch.dtype, *contents: Tensor) -> Path:
    digest = hashlib.sha256(f"{name} {dtype}".encode())
    for tensor in contents:
        digest.update(tensor.cpu().numpy().tobytes())
    return cache_folder() / digest.hexdigest()[:16]
