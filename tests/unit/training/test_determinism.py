"""Deterministic algorithms: on for a while, and then off again."""

import os

import pytest
import torch

from eagle.errors import InputError
from eagle.training.determinism import WORKSPACE, deterministic


def test_they_are_on_inside_alone(monkeypatch):
    monkeypatch.delenv(WORKSPACE, raising=False)
    with deterministic(False):
        assert not torch.are_deterministic_algorithms_enabled()
        assert WORKSPACE not in os.environ
    with deterministic(True):
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ[WORKSPACE] == ":4096:8"
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_operation_that_has_none_ends_in_one_message():
    """`put_` has none on a CPU either; another error stays what it is."""
    message = r"--deterministic = true \(train.deterministic\): put_ does not have .*; set it to"
    with pytest.raises(InputError, match=message), deterministic(True):
        torch.zeros(3).put_(torch.tensor([1]), torch.ones(1))
    assert not torch.are_deterministic_algorithms_enabled()
    with pytest.raises(RuntimeError, match="size"), deterministic(True):
        torch.zeros(3) + torch.zeros(2)
