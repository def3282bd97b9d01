"""The verifier and the draft as one precision runs them."""

from pathlib import Path
from typing import NamedTuple

import torch

from eagle.draft.checkpoint import load_draft
from eagle.draft.draft import Draft, check_fit
from eagle.draft.onednn_weights import reorder_linear_layers, reorder_weight
from eagle.draft.vocabulary import Vocabulary, full_vocabulary, part_of_vocabulary
from eagle.tokens.token_set import TokenSet
from eagle.verifier.verifier import Verifier


class Models(NamedTuple):
    verifier: Verifier
    draft: Draft
    vocabulary: Vocabulary
    """The tokens that can be drafted."""


def load_models(
    verifier_folder: Path,
    draft_folder: Path,
    dtype: torch.dtype,
    device: torch.device,
    trained_on: TokenSet,
    draft_vocabulary: int | None,
) -> Models:
    """Load both models, their weights laid out for fast products.

    Args:
        draft_vocabulary: how many tokens can be drafted, those that the assistant says most often
            in `trained_on`; None: all.

    Raises:
        InputError: one of the models cannot be loaded, or they do not belong together.
    """
    draft = load_draft(draft_folder).to(device)
    verifier = Verifier.load(verifier_folder, dtype, device)
    check_fit(draft.config, verifier.config, str(draft_folder))
    head = verifier.head
    vocabulary = full_vocabulary(head)
    if draft_vocabulary is not None:
        by_frequency = trained_on.by_frequency(len(head)).to(device)
        vocabulary = part_of_vocabulary(head, by_frequency[:draft_vocabulary])
    draft.cast(dtype)
    reorder_linear_layers(verifier.model, keep=verifier.model.get_output_embeddings())
    reorder_linear_layers(draft)
    return Models(verifier, draft, vocabulary._replace(head=reorder_weight(vocabulary.head)))
