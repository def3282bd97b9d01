"""The verifier's features and teacher of every document: kept on disk, or in a replay buffer.

Shapes: N tokens of all documents, T of some, N' and T' of them taught, H hidden.
"""

from typing import Protocol

import torch
from torch import Tensor, distributed

from eagle.draft.vocabulary import Vocabulary
from eagle.tokens.token_set import TokenSet, balance_by_tokens
from eagle.training.distributed import rank_and_world
from eagle.training.loss import Teacher, teach
from eagle.verifier.verifier import Verifier

# Padded tokens in one forward pass. A GPU wants its products large; on a CPU they are large enough
# at 1024 tokens, and what stands between them stays in the cache (a third faster than 4096).
FORWARD_TOKENS = {"cpu": 1024, "cuda": 16_384}


class Features(Protocol):
    """Where training takes features and the verifier's distributions from."""

    seconds: float
    """Wall time that computing them took before training began, also in an earlier run."""

    def prepare(self, documents: tuple[int, ...]) -> None:
        """Have these documents ready for `of`; all ranks call it with the same ones."""

    def of(self, documents: list[int], positions: list[Tensor]) -> tuple[Tensor, Teacher]:
        """Features of prepared documents side by side [T, H], T tokens in all, and the teacher at
        M chosen positions.

        Args:
            positions: of each document, among those of `TokenSet.taught`, int64, ascending.
        """


class ReplayedFeatures:
    """A buffer of some documents, used for several passes before the verifier runs again.

    It holds T x H features and T' x H numbers of the teacher on the device, on every rank; each
    rank computes its share and sends it to the others.
    """

    seconds = 0.0  # part of the training time itself

    def __init__(self, tokens: TokenSet, verifier: Verifier, vocabulary: Vocabulary):
        self.tokens, self.verifier, self.vocabulary = tokens, verifier, vocabulary
        self.taught = tokens.taught()
        self.held: tuple[int, ...] = ()

    def prepare(self, documents: tuple[int, ...]) -> None:
        if documents == self.held:
            return
        self.held, self.features, self.teacher = documents, {}, {}
        rank, world = rank_and_world()
        shares = balance_by_tokens(documents, self.tokens.bounds.diff().tolist(), world)
        device = self.verifier.head.device
        rounds = max(len(batches_of(self.tokens, share, device)) for share in shares)
        mine = self._compute(shares[rank], rounds)
        for owner, share in enumerate(shares):
            own = mine if owner == rank else self._empty(share)
            if world > 1:
                for tensor in own:  # as bytes: not every backend sends bfloat16
                    distributed.broadcast(tensor.view(torch.uint8), owner)
            features, means, likeliest = own
            lengths = [self.tokens.length(document) for document in share]
            taught = [int(self.taught[self.tokens.span(document)].sum()) for document in share]
            self.features |= dict(zip(share, features.split(lengths), strict=True))
            teachers = zip(means.split(taught), likeliest.split(taught), strict=True)
            self.teacher |= dict(zip(share, teachers, strict=True))

    def of(self, documents: list[int], positions: list[Tensor]) -> tuple[Tensor, Teacher]:
        means, likeliest = [], []
        for document, at in zip(documents, positions, strict=True):
            taught = self.taught[self.tokens.span(document)]
            rows = (taught.cumsum(0) - 1)[at].to(self.verifier.head.device)
            mean, token = self.teacher[document]
            means.append(mean[rows])
            likeliest.append(token[rows])
        features = torch.cat([self.features[document] for document in documents])
        return features, Teacher(torch.cat(means), torch.cat(likeliest))

    def _compute(self, share: list[int], rounds: int) -> tuple[Tensor, Tensor, Tensor]:
        whole, means, likeliest = own = self._empty(share)
        starts = _starts([self.tokens.length(document) for document in share])
        for documents in batches_of(self.tokens, share, self.verifier.head.device):
            lengths = [self.tokens.length(document) for document in documents]
            features = compute_features(self.tokens, self.verifier, documents)
            rounds -= 1
            for document, part in zip(documents, features.split(lengths), strict=True):
                start = starts[share.index(document)]
                whole[start : start + len(part)] = part
        keep_in_step(self.tokens, self.verifier, rounds)
        if share:
            taught = torch.cat([self.taught[self.tokens.span(document)] for document in share])
            teacher = teach(whole[taught.to(whole.device)], self.vocabulary)
            means.copy_(teacher.mean)
            likeliest.copy_(teacher.likeliest)
        return own

    def _empty(self, share: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        head = self.vocabulary.head
        tokens = sum(self.tokens.length(document) for document in share)
        taught = sum(int(self.taught[self.tokens.span(document)].sum()) for document in share)
        return (
            head.new_empty(tokens, head.shape[1], dtype=self.verifier.head.dtype),
            head.new_empty(taught, head.shape[1]),
            head.new_empty(taught, dtype=torch.int64),
        )


def compute_features(tokens: TokenSet, verifier: Verifier, documents: list[int]) -> Tensor:
    """Features [T, H] of documents side by side, from one forward pass padded on the right."""
    rows = [tokens.token_ids[tokens.span(document)] for document in documents]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)  # [B, longest]
    features = verifier.features(padded.long().to(verifier.head.device))
    return torch.cat([features[i, : len(row)] for i, row in enumerate(rows)])


def keep_in_step(tokens: TokenSet, verifier: Verifier, rounds: int) -> None:
    """A sharded verifier runs when all ranks run it: take part in what others still have to do."""
    for _ in range(rounds if verifier.sharded else 0):
        compute_features(tokens, verifier, [0])


def batches_of(tokens: TokenSet, documents: list[int], device: torch.device) -> list[list[int]]:
    """Documents of like length together, at most FORWARD_TOKENS padded tokens a batch."""
    at_once = FORWARD_TOKENS[device.type]
    batches: list[list[int]] = []
    for document in sorted(documents, key=tokens.length):
        longest = tokens.length(document)  # ascending order: the newest is the longest
        if not batches or (len(batches[-1]) + 1) * longest > at_once:
            batches.append([])
        batches[-1].append(document)
    return batches


def _starts(lengths: list[int]) -> list[int]:
    starts = [0]
    for length in lengths:
        starts.append(starts[-1] + length)
    return starts
