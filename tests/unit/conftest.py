"""Fixtures that tests of decoding and of evaluation share."""

import pytest
import torch

from eagle.draft.draft import Draft, draft_config
from eagle.training.initialization import initialize_random
from eagle.verifier.verifier import Verifier


@pytest.fixture(scope="module")
def verifier(tiny_verifier):
    return Verifier.load(tiny_verifier, torch.float64, torch.device("cpu"))


@pytest.fixture(scope="module")
def draft(verifier):
    draft = Draft(draft_config(None, verifier.config)).double()
    initialize_random(draft, 0)
    return draft


@pytest.fixture(scope="module")
def echo(verifier):
    """A draft that returns its input feature, so that it proposes the verifier's last token again.

    It is often right for a verifier that repeats itself, which an untrained draft never is.
    """
    echo = Draft(draft_config(None, verifier.config)).double()
    for parameter in echo.parameters():
        parameter.data.zero_()
    echo.fc.weight.data[:, verifier.config.hidden_size :] = torch.eye(verifier.config.hidden_size)
    return echo
