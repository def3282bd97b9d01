"""Fixtures that the tests of training share."""

import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import torch

from eagle.config import TrainConfig
from eagle.draft.draft import Draft, draft_config
from eagle.tokens.token_set import TokenSet
from eagle.tokens.tokenization import tokenize
from eagle.tracking import Progress
from eagle.training.initialization import initialize_random
from eagle.verifier.verifier import Verifier
from tests.tiny import MARKED, make_messages, make_tokenizer


@pytest.fixture
def verifier(tiny_verifier, device) -> Verifier:
    return Verifier.load(tiny_verifier, torch.float32, device)


@pytest.fixture
def draft(verifier) -> Draft:
    draft = Draft(draft_config(None, verifier.config))
    initialize_random(draft, 0)
    return draft.to(verifier.head.device)


@pytest.fixture(scope="session")
def tokens() -> TokenSet:
    """Twelve documents."""
    with Progress("tokenize", 12, "conversations") as progress:
        return tokenize(make_messages(12), make_tokenizer(), MARKED, 200, progress)[0]


@pytest.fixture(scope="session")
def make_config() -> Callable[..., TrainConfig]:
    """A config with the tutorial's defaults, in float32, and paths that nothing reads."""
    paths = {"verifier_model_path": "v", "dataset_path": "d", "cpdir": "c"}
    dtypes = ("verifier_model_dtype", "verifier_model_lm_head_dtype", "eagle_dtype")
    fixed = {"mixed_precision": "none"} | dict.fromkeys(dtypes, "float32") | paths
    return lambda **values: TrainConfig(**fixed | values)


@pytest.fixture
def largest_file() -> Callable[[int], AbstractContextManager[None]]:
    """No file can grow over this size meanwhile, as on a disk that is full."""

    @contextmanager
    def limit(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit
