"""Documents as the draft sees them: token ids, loss mask and bounds, memory-mapped."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from eagle.errors import InputError
from eagle.files import read_json


@dataclass
class TokenSet:
    """D documents of N tokens together.

    token_ids: int32 [N]. loss_mask: uint8 [N], 1 where the assistant says the token.
    bounds: int64 [D + 1]; document d is [bounds[d], bounds[d + 1]).
    """

    token_ids: Tensor
    loss_mask: Tensor
    bounds: Tensor

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def span(self, document: int) -> slice:
        return slice(int(self.bounds[document]), int(self.bounds[document + 1]))

    def length(self, document: int) -> int:
        return int(self.bounds[document + 1] - self.bounds[document])

    def part(self, first: int, end: int) -> "TokenSet":
        """Documents `first` to `end` - 1."""
        bounds = self.bounds[first : end + 1]
        rows = slice(int(bounds[0]), int(bounds[-1]))
        return TokenSet(self.token_ids[rows], self.loss_mask[rows], bounds - bounds[0])

    def counted(self, document: int, alignment: str, stop_token_ids: list[int]) -> Tensor:
        """Which of a document's L - 1 (input, target) pairs count: bool [L - 1].

        Pair t is input (f_t, token t + 1) and target f_{t+1}, so the last position has none.

        Args:
            alignment: "official": token t is the assistant's, as in SafeAILab/EAGLE's training.
                "decoding": token t + 1 is, and its reply has not stopped by then: what the draft
                meets when it continues a token that the verifier chose.
        """
        span = self.span(document)
        mask = self.loss_mask[span].bool()
        if alignment == "official":
            return mask[:-1]
        stops = torch.isin(self.token_ids[span], torch.tensor(stop_token_ids)) & mask
        # stops so far in this run of assistant tokens = all so far - those before the run began
        so_far = stops.cumsum(0)
        began = mask & ~torch.cat([torch.zeros(1, dtype=torch.bool), mask[:-1]])
        before_run = torch.where(began, so_far - stops.long(), 0).cummax(0).values
        return (mask & (so_far == before_run))[1:]

    def taught(self) -> Tensor:
        """Tokens that are the target of some counted pair in either alignment: bool [N]."""
        mask = self.loss_mask.bool()
        after = torch.cat([torch.zeros(1, dtype=torch.bool), mask[:-1]])
        taught = mask | after
        taught[self.bounds[:-1]] = False  # a document's first token follows nothing
        return taught

    def by_frequency(self, vocabulary: int) -> Tensor:
        """Every token id, the one the assistant says most often first: int64 [vocabulary]."""
        said = self.token_ids[self.loss_mask.bool()]
        counts = torch.bincount(said, minlength=vocabulary)
        return counts.argsort(descending=True, stable=True)

    def save(self, path: Path) -> None:
        tensors = {
            "token_ids": self.token_ids,
            "loss_mask": self.loss_mask,
            "bounds": self.bounds,
        }
        save_file(tensors, path)

    @classmethod
    def load(cls, path: Path) -> "TokenSet":
        """Map a file that `save` wrote.

        Raises:
            InputError: absent, cut off or of another form.
        """
        try:
            with safe_open(path, framework="pt") as file:
                return cls(*(file.get_tensor(k) for k in ("token_ids", "loss_mask", "bounds")))
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"{path}: not a token file of the tokenise stage ({error}); run that stage again"
            ) from None

    def limited(self, maximum_length: int) -> "TokenSet":
        """Every document cut at `maximum_length` tokens; itself when none is longer."""
        if int(self.bounds.diff().max()) <= maximum_length:
            return self
        kept = [self.span(document) for document in range(len(self))]
        kept = [slice(span.start, min(span.stop, span.start + maximum_length)) for span in kept]
        lengths = [span.stop - span.start for span in kept]
        return TokenSet(
            torch.cat([self.token_ids[span] for span in kept]),
            torch.cat([self.loss_mask[span] for span in kept]),
            torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int64),
        )


def balance_by_tokens(documents: Sequence[int], lengths: list[int], slots: int) -> list[list[int]]:
    """Spread documents over slots (processes, or processes x micro-steps) with about equal tokens
    in each.

    Longest first, each to the emptiest slot; a slot stays empty only when there are fewer
    documents than slots.
    """
    dealt: list[list[int]] = [[] for _ in range(slots)]
    filled = [0] * slots
    for document in sorted(documents, key=lambda d: (-lengths[d], d)):
        slot = filled.index(min(filled))
        dealt[slot].append(document)
        filled[slot] += lengths[document]
    return dealt


def read_manifest(folder: Path) -> dict:
    """The tokenise stage's manifest: hashes of tokenizer and template, and the counts."""
    return read_json(folder / "manifest.json")
