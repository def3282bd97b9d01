"""The verifier's features of every document: computed once and kept, or again each time."""

import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, distributed

from eagle.errors import InputError
from eagle.files import read_json, write_json
from eagle.tokens import TokenSet
from eagle.tracking import Progress
from eagle.verifier import Verifier

# Padded tokens in one forward pass: enough to keep the products large, at any sequence length.
FORWARD_TOKENS = 4096


class Features(Protocol):
    """Where a training step takes features from."""

    seconds: float
    """Wall time that computing them took, also when an earlier run did it."""

    def of(self, documents: list[int]) -> Tensor:
        """Features of the documents side by side: [T, H], T tokens in all."""


class RecomputedFeatures:
    """Runs the verifier at every use: no disk, but its cost in every epoch."""

    seconds = 0.0  # part of the training time itself

    def __init__(self, tokens: TokenSet, verifier: Verifier):
        self.tokens, self.verifier = tokens, verifier

    def of(self, documents: list[int]) -> Tensor:
        return compute(self.tokens, self.verifier, documents)


class CachedFeatures:
    """Features of all documents in one memory-mapped file, in the order of the tokens.

    The folder is named by what the features depend on, so every experiment with the same verifier,
    tokens and dtype shares it.
    """

    def __init__(
        self, tokens: TokenSet, verifier: Verifier, verifier_hash: str, progress_seconds: float
    ):
        """Map the features, computing them first when they are not there; all ranks take part.

        Raises:
            InputError: not enough disk for them.
        """
        self.tokens = tokens
        dtype = verifier.head.dtype
        shape = (len(tokens.token_ids), verifier.config.hidden_size)
        folder = cache_folder() / _key(tokens, verifier_hash, dtype)
        if not (folder / "manifest.json").is_file():
            _fill(folder, tokens, verifier, shape, progress_seconds)
        self.seconds = read_json(folder / "manifest.json")["seconds"]
        self.features = _map(folder / "features.bin", shape, dtype)
        self.device = verifier.head.device

    def of(self, documents: list[int]) -> Tensor:
        spans = [self.features[self.tokens.span(document)] for document in documents]
        return torch.cat(spans).to(self.device, non_blocking=True)


def cache_folder() -> Path:
    """$EAGLE_CACHE, or .cache/eagle of the main checkout, also from DVC's temporary copies."""
    if "EAGLE_CACHE" in os.environ:
        return Path(os.environ["EAGLE_CACHE"])
    here = Path.cwd()
    copies = [parent for parent in here.parents if parent.name == "exps" and ".dvc" in parent.parts]
    main = copies[0].parents[2] if copies else here  # MAIN/.dvc/tmp/exps/COPY
    return main / ".cache" / "eagle"


def compute(tokens: TokenSet, verifier: Verifier, documents: list[int]) -> Tensor:
    """Features [T, H] of documents side by side, from one forward pass padded on the right."""
    rows = [tokens.token_ids[tokens.span(document)] for document in documents]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)  # [B, longest]
    features = verifier.features(padded.long().to(verifier.head.device))
    return torch.cat([features[i, : len(row)] for i, row in enumerate(rows)])


def _fill(
    folder: Path,
    tokens: TokenSet,
    verifier: Verifier,
    shape: tuple[int, int],
    progress_seconds: float,
) -> None:
    started = time.monotonic()
    rank, world = _rank_and_world()
    # one name a run: an experiment beside this one may be filling the same cache
    owner = [os.getpid()]
    if world > 1:
        distributed.broadcast_object_list(owner)
    partial = folder.with_name(f".{folder.name}.{owner[0]}.partial")
    size = shape[0] * shape[1] * verifier.head.dtype.itemsize
    if rank == 0:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        free = shutil.disk_usage(partial).free
        if size > free:
            raise InputError(
                f"features of {shape[0]:,} tokens x {shape[1]} x "
                f"{verifier.head.dtype.itemsize} bytes need {size / 1e9:.1f} GB, "
                f"{folder.parent} has {free / 1e9:.1f} GB free: set EAGLE_CACHE to a larger disk, "
                "take fewer conversations, or set train.features to recompute"
            )
        _map(partial / "features.bin", shape, verifier.head.dtype)  # creates the file
    _barrier()
    features = _map(partial / "features.bin", shape, verifier.head.dtype)
    with Progress("features", len(tokens.token_ids), "tokens", progress_seconds) as progress:
        for number, documents in enumerate(_batches(tokens)):
            done = sum(tokens.length(document) for document in documents)
            if number % world == rank:
                values = compute(tokens, verifier, documents).cpu()
                lengths = [tokens.length(document) for document in documents]
                for document, part in zip(documents, values.split(lengths), strict=True):
                    features[tokens.span(document)] = part
            progress.advance(done)
    del features
    _barrier()
    if rank == 0:
        write_json(partial / "manifest.json", {"seconds": time.monotonic() - started})
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
    _barrier()


def _batches(tokens: TokenSet) -> list[list[int]]:
    """Documents of like length together, at most FORWARD_TOKENS padded tokens a batch."""
    batches: list[list[int]] = []
    for document in sorted(range(len(tokens)), key=tokens.length):
        longest = tokens.length(document)  # ascending order: the newest is the longest
        if not batches or (len(batches[-1]) + 1) * longest > FORWARD_TOKENS:
            batches.append([])
        batches[-1].append(document)
    return batches


def _map(path: Path, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    flat = torch.from_file(str(path), shared=True, size=shape[0] * shape[1], dtype=dtype)
    return flat.view(shape)


def _key(tokens: TokenSet, verifier_hash: str, dtype: torch.dtype) -> str:
    digest = hashlib.sha256(f"{verifier_hash} {dtype}".encode())
    for tensor in (tokens.token_ids, tokens.bounds):
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:16]


def _rank_and_world() -> tuple[int, int]:
    if distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _barrier() -> None:
    if distributed.is_initialized():
        distributed.barrier()
