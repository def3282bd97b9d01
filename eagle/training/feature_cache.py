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
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TextIO

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
    verifier, tokens and precision share it. Each machine has its own caches.
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
            needed=states.folder,
        )
        teacher.fill(lambda maps: _run_head(*maps, self, taught, progress_seconds))
        self.mean, self.likeliest = teacher.maps()
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

    def __init__(
        self,
        folder: Path,
        shapes: dict[str, tuple[tuple[int, ...], torch.dtype]],
        needed: Path | None = None,
    ):
        """Args: needed: a cache that must not be removed to make room for this one."""
        self.folder, self.shapes, self.needed = folder, shapes, needed

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
        name = answers[rank_and_world()[0] - local_rank_and_world()[0]][1]
        self.folder = complete.with_name(f".{name}.partial")
        try:
            self._fill(write, complete, leads)
        finally:
            if leads:
                shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = complete
        barrier()
        return True

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
            write_checksums(self.folder, hashes_of(self.folder))
            for file in self.shapes:
                sync(self._path(file))
            shutil.rmtree(complete, ignore_errors=True)
            try:
                put_in_place(self.folder, complete)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                # another run, or another agent on this machine, was first
            lock.close()

    def _is_intact(self) -> bool:
        """Whether the files are there with the bytes that were written.

        They take minutes to days to compute and many later runs read them, so a file that was
        truncated or changed must not be used.
        """
        if not (self.folder / CHECKSUMS).is_file():
            return False
        try:
            found = damaged(self.folder)
        except OSError as error:  # another run is removing them
            found = [error]
        if found:
            print(f"{found[0]}; the features are computed again", file=sys.stderr)
            return False
        with suppress(OSError):  # whoever may only read them does not say that they are in use
            os.utime(self.folder)  # the caches used last are removed last
        return True

    def _make_room(self) -> None:
        needed = sum(math.prod(shape) * dtype.itemsize for shape, dtype in self.shapes.values())
        others = [path for path in self.folder.parent.glob("[!.]*") if path.is_dir()]
        others = sorted(set(others) - {self.needed}, key=lambda path: path.stat().st_mtime)
        removable = sum(file.stat().st_size for path in others for file in path.iterdir())
        free = shutil.disk_usage(self.folder).free
        if needed > free + removable:
            (rows, width), dtype = next(iter(self.shapes.values()))
            raise InputError(
                f"features of {rows:,} tokens x {width} x {dtype.itemsize} bytes need "
                f"{needed / 1e9:.1f} GB, {self.folder.parent} has {free / 1e9:.1f} GB free and "
                f"{removable / 1e9:.1f} GB of other runs' features: set EAGLE_CACHE to a larger "
                "disk, take fewer conversations, or set train.features to replay"
            )
        while others and needed > shutil.disk_usage(self.folder).free:
            print(f"{others[0]}: removed to make room for features", file=sys.stderr)
            shutil.rmtree(others.pop(0), ignore_errors=True)

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


def _locked(partial: Path) -> TextIO:
    """A new partial cache, whose lock this process keeps until it ends, however it ends."""
    while True:
        partial.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):  # another run took it for abandoned before it was locked
            lock = (partial / LOCK).open("w")
            with suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX)
            if (partial / LOCK).exists():
                return lock


def _remove_abandoned(folder: Path) -> None:
    """Remove the partial caches of runs that were killed: no process has a lock on them."""
    for partial in folder.glob(".*.partial"):
        try:
            if not any(partial.iterdir()):
                partial.rmdir()
                continue
            with (partial / LOCK).open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(partial, ignore_errors=True)
        except OSError:  # a run is filling it, or is about to
            continue


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
