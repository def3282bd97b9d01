"""The verifier and the draft as one precision runs them."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from eagle.draft.checkpoint import load_draft
from eagle.draft.draft import Draft, check_fit
from eagle.draft.onednn_weights import reorder_linear_layers, reorder_weight
from eagle.draft.vocabulary import Vocabulary, full_vocabulary, part_of_vocabulary
from eagle.tokens.token_set import TokenSet
from eagle.verifier.configuration import load_config
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
    drafted: Tensor | None,
) -> Models:
    """Load both models, their weights laid out for fast products.

    Args:
        drafted: the tokens that can be drafted, int64 [S]; None: all.

    Raises:
        InputError: one of the models cannot be loaded, or they do not belong together.
    """
    draft = load_draft(draft_folder).to(device)
    verifier = Verifier.load(verifier_folder, dtype, device)
    check_fit(draft.config, verifier.config, str(draft_folder))
    head = verifier.head
    vocabulary = full_vocabulary(head)
    if drafted is not None:
        vocabulary = part_of_vocabulary(head, drafted)
    draft.cast(dtype)
    reorder_linear_layers(verifier.model, keep=verifier.model.get_output_embeddings())
    reorder_linear_layers(draft)
    return Models(verifier, draft, vocabulary._replace(head=reorder_weight(vocabulary.head)))


def frequent_tokens(
    trained_on: TokenSet, verifier_folder: Path, count: int | None
) -> Tensor | None:
    """The tokens that the assistant says most often, for `load_models`: int64 [count].

    Returns:
        None where `count` is: all can be drafted.

    Raises:
        InputError: the verifier's config cannot be read.
    """
    if count is None:
        return None
    config = load_config(verifier_folder).get_text_config(decoder=True)
    return trained_on.by_frequency(config.vocab_size)[:count]
