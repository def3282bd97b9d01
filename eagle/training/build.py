"""The wiring of a training run: drafts, vocabularies, features and splits make a trainer."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from eagle.config import TrainConfig
from eagle.draft.automatic import automatic_size
from eagle.draft.draft import Draft, draft_config
from eagle.draft.vocabulary import Vocabulary, full_vocabulary, part_of_vocabulary
from eagle.tokens.token_set import TokenSet
from eagle.tracking import Tracker
from eagle.training.batch import Split
from eagle.training.distributed import rank_and_world
from eagle.training.feature_cache import CachedFeatures
from eagle.training.features import Features, ReplayedFeatures
from eagle.training.initialization import (
    choose_initialization,
    initialize_from_draft,
    initialize_random,
)
from eagle.training.memory import KEPT_KERNELS
from eagle.training.run_identity import initial_draft
from eagle.training.trainer import Trainer, compute_dtype
from eagle.verifier.attention import PACKED, choose_attention
from eagle.verifier.verifier import Verifier

# On a CPU, oneDNN keeps a kernel with its scratch memory for every new shape, by default 1024 of
# them. Training has a few hundred shapes, but every batch of the verifier has a new one, and the
# process would grow by gigabytes. oneDNN reads the variable at the first product.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(KEPT_KERNELS))


def new_draft(config: TrainConfig, verifier: Verifier) -> tuple[TrainConfig, Draft]:
    """A draft with random weights on the verifier's device, after the config that it is trained
    with: in that, `initialization`, `attn` and `softmax_vocabulary` are what `auto` is for this
    verifier and device.

    Raises:
        InputError: `eagle_config_path` is not a config, the verifier does not fit it or
            `initialization`, the draft to begin from is not there or of another shape, or the
            device has no such `attn`.
    """
    draft = Draft(draft_config(config.eagle_config_path, verifier.config))
    initialize_random(draft, config.seed)
    if folder := initial_draft(config):
        initialize_from_draft(draft, folder)
    draft = draft.to(verifier.head.device)
    initialization, reason = choose_initialization(config.initialization, draft, verifier)
    _say_choice("initialization", config.initialization, initialization, reason)
    config = config.model_copy(update={"initialization": initialization})
    config = with_vocabulary(config, verifier)
    return with_attention(config, draft, verifier), draft


def with_attention(config: TrainConfig, draft: Draft, verifier: Verifier) -> TrainConfig:
    """The config with the `attn` that runs here. All ranks take part.

    Where that is one kernel for all documents, the verifier reads them packed from here on.

    Raises:
        InputError: the device has no such `attn`.
    """
    dtypes = {compute_dtype(config), verifier.head.dtype}
    size = draft.layers[0].self_attn.head_dim
    attn, reason = choose_attention(config.attn, verifier.head.device, dtypes, size)
    _say_choice("attn", config.attn, attn, reason)
    if attn in PACKED and not verifier.packs:
        reason = verifier.pack_documents(attn)
        _say_choice("the verifier's attn", attn, f"{verifier.attn}, with padding", reason)
    return config.model_copy(update={"attn": attn})


def with_vocabulary(config: TrainConfig, verifier: Verifier) -> TrainConfig:
    """The config with what `softmax_vocabulary` is on the verifier's device."""
    device = verifier.head.device.type
    size = automatic_size(config.softmax_vocabulary, device)
    if size != config.softmax_vocabulary:
        chosen = "the full vocabulary" if size is None else f"{size:,} tokens"
        _say_choice("softmax_vocabulary", config.softmax_vocabulary, chosen, f"on {device}")
    return config.model_copy(update={"softmax_vocabulary": size})


def _say_choice(name: str, asked: str, chosen: str, reason: str | None) -> None:
    if reason and rank_and_world()[0] == 0:
        print(f"train: {name} {asked} is {chosen}: {reason}", file=sys.stderr, flush=True)


def build_trainer(
    config: TrainConfig,
    draft: Draft,
    verifier: Verifier,
    verifier_hash: str,
    train: TokenSet,
    validation: TokenSet,
    run_folder: Path,
    tracker: Tracker,
    form: Callable[..., Trainer] = Trainer,
) -> Trainer:
    """A trainer that begins, or goes on from the state in its run folder; all ranks take part.

    With cached features, those that are missing are computed here.

    Args:
        verifier_hash: names the verifier in the feature cache.
        form: the trainer's class.

    Raises:
        InputError: something in the config does not fit the data, the verifier or the machine.
    """

    def features(tokens: TokenSet, vocabulary: Vocabulary) -> Features:
        if config.features == "replay":
            return ReplayedFeatures(tokens, verifier, vocabulary)
        return CachedFeatures(tokens, verifier, vocabulary, verifier_hash, config.progress_seconds)

    head = verifier.head.to(getattr(torch, config.verifier_model_lm_head_dtype))
    full = trained = full_vocabulary(head)
    if config.softmax_vocabulary is not None:
        frequent = train.by_frequency(len(head))[: config.softmax_vocabulary]
        trained = part_of_vocabulary(head, frequent)
    return form(
        config,
        draft,
        verifier,
        Split.make(train, features(train, trained), config.mask_alignment, verifier.stop_token_ids),
        # decoding-aligned, as the draft is used in serving, whatever training counts
        Split.make(validation, features(validation, full), "decoding", verifier.stop_token_ids),
        run_folder,
        tracker,
    )
