"""A set of tokenized documents: token ids, loss mask and bounds, memory-mapped."""

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
    """D documents that have N tokens together."""

    token_ids: Tensor
    """int32 [N]."""
    loss_mask: Tensor
    """uint8 [N]: 1 for a token of the assistant, else 0."""
    bounds: Tensor
    """int64 [D + 1]: the tokens of document d are [bounds[d], bounds[d + 1])."""

    def __len__(self) -> int:
        """D, the number of documents."""
        return len(self.bounds) - 1

    def span(self, document: int) -> slice:
        """The positions of a document's tokens."""
        return slice(int(self.bounds[document]), int(self.bounds[document + 1]))

    def length(self, document: int) -> int:
        """The number of a document's tokens."""
        return int(self.bounds[document + 1] - self.bounds[document])

    def part(self, first: int, end: int) -> "TokenSet":
        """The documents `first` to `end` - 1, as a set."""
        bounds = self.bounds[first : end + 1]
        rows = slice(int(bounds[0]), int(bounds[-1]))
        return TokenSet(self.token_ids[rows], self.loss_mask[rows], bounds - bounds[0])

    def counted(self, document: int, alignment: str, stop_token_ids: list[int]) -> Tensor:
        """Which (input, target) pairs of a document of L tokens count in the loss: bool [L - 1].

        The input of pair t is (feature f_t, token t + 1) and its target is f_{t+1}; the last
        position has no target.

        Args:
            alignment: "official": pair t counts if token t is the assistant's, as in the training
                of SafeAILab/EAGLE; but not at the end of a reply without a stop token, which was
                cut: token t + 1 is then one that the assistant did not write.
                "decoding": pair t counts if token t + 1 is the assistant's and the reply has not
                stopped with it or before it. These are the pairs of serving, in which the draft
                continues tokens that the verifier selected.
            stop_token_ids: tokens that end a reply.
        """
        span = self.span(document)
        mask = self.loss_mask[span].bool()
        stops = torch.isin(self.token_ids[span], torch.tensor(stop_token_ids)) & mask
        # stops up to a token in its run of assistant tokens = all stops - stops before the run
        stop_count = stops.cumsum(0)
        run_start = mask & ~torch.cat([torch.zeros(1, dtype=torch.bool), mask[:-1]])
        before_run = torch.where(run_start, stop_count - stops.long(), 0).cummax(0).values
        unstopped = mask & (stop_count == before_run)
        if alignment == "official":
            return mask[:-1] & ~(unstopped[:-1] & ~mask[1:])
        return unstopped[1:]

    def taught(self) -> Tensor:
        """Which positions are the target of a pair that counts in some alignment: bool [N]."""
        mask = self.loss_mask.bool()
        after = torch.cat([torch.zeros(1, dtype=torch.bool), mask[:-1]])
        taught = mask | after
        taught[self.bounds[:-1]] = False  # the first token of a document is no target
        return taught

    def by_frequency(self, vocabulary: int) -> Tensor:
        """All token ids, those most frequent among the assistant's first: int64 [vocabulary]."""
        assistant_ids = self.token_ids[self.loss_mask.bool()]
        counts = torch.bincount(assistant_ids, minlength=vocabulary)
        return counts.argsort(descending=True, stable=True)

    def save(self, path: Path) -> None:
        """Write the set as a safetensors file."""
        tensors = {
            "token_ids": self.token_ids,
            "loss_mask": self.loss_mask,
            "bounds": self.bounds,
        }
        save_file(tensors, path)

    @classmethod
    def load(cls, path: Path) -> "TokenSet":
        """Memory-map a file that `save` or the stage tokenize_dataset wrote.

        Raises:
            InputError: the file is absent, cut off or of another form.
        """
        try:
            with safe_open(path, framework="pt") as file:
                return cls(*(file.get_tensor(k) for k in ("token_ids", "loss_mask", "bounds")))
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"{path}: not a token file of the stage tokenize_dataset ({error}); run that stage "
                "again"
            ) from None

    def limited(self, maximum_length: int) -> "TokenSet":
        """A set with every document cut at `maximum_length` tokens; this set if none is longer."""
        if int(self.bounds.diff().max()) <= maximum_length:
            return self
        spans = [self.span(document) for document in range(len(self))]
        spans = [slice(span.start, min(span.stop, span.start + maximum_length)) for span in spans]
        lengths = [span.stop - span.start for span in spans]
        return TokenSet(
            torch.cat([self.token_ids[span] for span in spans]),
            torch.cat([self.loss_mask[span] for span in spans]),
            torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int64),
        )


def balance_by_tokens(documents: Sequence[int], lengths: list[int], slots: int) -> list[list[int]]:
    """Distribute documents over slots so that every slot has about equally many tokens.

    The longest document comes first, and each goes to the slot with the fewest tokens. A slot stays
    empty only if there are fewer documents than slots.

    Args:
        documents: numbers of the documents to distribute.
        lengths: tokens of each document of the set, by its number.
        slots: processes, or processes x micro-steps.

    Returns:
        The documents of each slot.
    """
    balanced: list[list[int]] = [[] for _ in range(slots)]
    tokens = [0] * slots
    for document in sorted(documents, key=lambda d: (-lengths[d], d)):
        slot = tokens.index(min(tokens))
        balanced[slot].append(document)
        tokens[slot] += lengths[document]
    return balanced


def read_manifest(folder: Path) -> dict:
    """Read the manifest of the stage tokenize_dataset: hashes of its inputs, and counts."""
    return read_json(folder / "manifest.json")
