"""The verifier's features and its next-token distributions, which training takes them from.

Shapes: T tokens of some documents, T' of them taught, M chosen positions, H hidden.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from eagle.draft.vocabulary import Vocabulary
from eagle.errors import InputError
from eagle.tokens.token_set import TokenSet, balance_by_tokens
from eagle.training.distributed import broadcast, rank_and_world
from eagle.training.loss import Teacher, teach
from eagle.training.memory import FORWARD_TOKENS
from eagle.verifier.verifier import Verifier


class Features(Protocol):
    """Features of documents, and the teacher at their taught positions (`TokenSet.taught`)."""

    vocabulary: Vocabulary
    """What the teacher's softmax runs over."""
    seconds: float
    """Wall time that computing them took before training began, also in an earlier run."""
    verifier_runs: bool
    """Whether the verifier runs in this process, or all of its features were there before."""

    def prepare(self, documents: tuple[int, ...]) -> None:
        """Have these documents ready for `of`; all ranks call it with the same documents."""

    def of(self, documents: list[int], positions: list[Tensor]) -> tuple[Tensor, Teacher]:
        """Features of prepared documents side by side [T, H], and the teacher at M positions.

        Args:
            positions: of each document, some of its taught positions, int64, ascending.
        """


class ReplayedFeatures:
    """A buffer of some documents, used for several passes before the verifier runs again.

    It has T x H features and T' x H numbers of the teacher on the device, on every rank. Each rank
    computes its share and sends it to the others.
    """

    seconds = 0.0  # computing them is part of the training time itself
    verifier_runs = True

    def __init__(self, tokens: TokenSet, verifier: Verifier, vocabulary: Vocabulary):
        self.tokens, self.verifier, self.vocabulary = tokens, verifier, vocabulary
        self.taught = tokens.taught()
        self.buffered: tuple[int, ...] = ()

    def prepare(self, documents: tuple[int, ...]) -> None:
        if documents == self.buffered:
            return
        self.buffered, self.features, self.teacher = documents, {}, {}
        rank, world = rank_and_world()
        shares = balance_by_tokens(documents, self.tokens.bounds.diff().tolist(), world)
        rounds = max(len(group_by_length(self.tokens, share, self.verifier)) for share in shares)
        computed = self._compute(shares[rank], rounds)
        for owner, share in enumerate(shares):
            tensors = computed if owner == rank else self._allocate(share)
            for tensor in tensors:
                broadcast(tensor, owner)
            features, means, likeliest = tensors
            lengths = [self.tokens.length(document) for document in share]
            taught = [int(self.taught[self.tokens.span(document)].sum()) for document in share]
            self.features |= dict(zip(share, features.split(lengths), strict=True))
            teachers = zip(means.split(taught), likeliest.split(taught), strict=True)
            self.teacher |= dict(zip(share, teachers, strict=True))

    def of(self, documents: list[int], positions: list[Tensor]) -> tuple[Tensor, Teacher]:
        means, likeliest = [], []
        for document, at in zip(documents, positions, strict=True):
            taught = self.taught[self.tokens.span(document)]
            rows = (taught.cumsum(0) - 1)[at].to(self.verifier.head.device, non_blocking=True)
            mean, token = self.teacher[document]
            means.append(mean[rows])
            likeliest.append(token[rows])
        features = torch.cat([self.features[document] for document in documents])
        return features, Teacher(torch.cat(means), torch.cat(likeliest))

    def _compute(self, share: list[int], rounds: int) -> tuple[Tensor, Tensor, Tensor]:
        """Features [T, H], the teacher's means [T', H] and tokens [T'] of this rank's share.

        Args:
            rounds: forward passes of the rank that has most.
        """
        features, means, likeliest = self._allocate(share)
        lengths = [self.tokens.length(document) for document in share]
        starts = dict(zip(share, accumulate(lengths, initial=0), strict=False))
        groups = group_by_length(self.tokens, share, self.verifier)
        for documents in groups:
            computed = _run_verifier(self.tokens, self.verifier, documents)
            parts = computed.split([self.tokens.length(document) for document in documents])
            for document, part in zip(documents, parts, strict=True):
                features[starts[document] : starts[document] + len(part)] = part
        keep_in_step(self.tokens, self.verifier, rounds - len(groups))
        if share:
            check_finite(share, features.split(lengths))  # here the host waits, once
            taught = torch.cat([self.taught[self.tokens.span(document)] for document in share])
            rows = taught.nonzero()[:, 0].to(features.device, non_blocking=True)
            teacher = teach(features[rows], self.vocabulary)
            means.copy_(teacher.mean)
            likeliest.copy_(teacher.likeliest)
        return features, means, likeliest

    def _allocate(self, share: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Room for what `_compute` returns."""
        head = self.vocabulary.head
        tokens = sum(self.tokens.length(document) for document in share)
        taught = sum(int(self.taught[self.tokens.span(document)].sum()) for document in share)
        return (
            head.new_empty(tokens, head.shape[1], dtype=self.verifier.head.dtype),
            head.new_empty(taught, head.shape[1]),
            head.new_empty(taught, dtype=torch.int64),
        )


def compute_features(tokens: TokenSet, verifier: Verifier, documents: list[int]) -> Tensor:
    """Features [T, H] of documents side by side, from one forward pass.

    Raises:
        InputError: they are not finite, as in a precision that the verifier overflows.
    """
    computed = _run_verifier(tokens, verifier, documents)
    check_finite(documents, computed.split([tokens.length(document) for document in documents]))
    return computed


def _run_verifier(tokens: TokenSet, verifier: Verifier, documents: list[int]) -> Tensor:
    return verifier.side_by_side([tokens.token_ids[tokens.span(d)] for d in documents])


def check_finite(documents: list[int], features: Sequence[Tensor]) -> None:
    """Check the features [L, H] of each of some documents; the host waits for the device.

    Raises:
        InputError: some are not finite.
    """
    finite = torch.stack([part.isfinite().all() for part in features]).tolist()
    if not all(finite):
        dtype = str(features[0].dtype).removeprefix("torch.")
        raise InputError(
            f"document {documents[finite.index(False)]} (numbered as in the token file): the "
            f"verifier's features are not finite in {dtype}; compute them in bfloat16 or float32 "
            "(train.verifier_model_dtype, --verifier-model-dtype; evaluate.dtype)"
        )


def keep_in_step(tokens: TokenSet, verifier: Verifier, rounds: int) -> None:
    """Run a sharded verifier `rounds` times more, because it runs only when all ranks run it: as
    often as other ranks still have documents when this one has none left."""
    for _ in range(rounds if verifier.sharded else 0):
        compute_features(tokens, verifier, [0])


def group_by_length(tokens: TokenSet, documents: list[int], verifier: Verifier) -> list[list[int]]:
    """Documents of similar length together, whose forward pass reads at most FORWARD_TOKENS."""
    limit = FORWARD_TOKENS[verifier.head.device.type]
    groups: list[list[int]] = []
    lengths: list[int] = []  # of the newest group
    for document in sorted(documents, key=tokens.length):
        lengths.append(tokens.length(document))
        if not groups or verifier.tokens_in_a_pass(lengths) > limit:
            groups.append([])
            lengths = lengths[-1:]
        groups[-1].append(document)
    return groups
