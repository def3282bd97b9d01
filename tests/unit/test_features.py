"""Cached features are the verifier's, whatever shares a batch, and are found again."""

import os
from pathlib import Path

import pytest
import torch

from eagle import features
from eagle.errors import InputError
from eagle.features import CachedFeatures, RecomputedFeatures, cache_folder
from eagle.tokens import tokenize
from eagle.tracking import Progress
from eagle.verifier import Verifier
from tests.tiny import MARKED, make_messages, make_tokenizer


@pytest.fixture
def verifier(tiny_verifier):
    return Verifier.load(tiny_verifier, torch.float32, torch.device("cpu"))


@pytest.fixture
def tokens():
    with Progress("t", 12, "c") as progress:
        return tokenize(make_messages(12), make_tokenizer(), MARKED, 200, progress)[0]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EAGLE_CACHE", str(tmp_path))
    return tmp_path


def test_they_are_the_states_after_the_final_norm(verifier, tokens, monkeypatch):
    monkeypatch.setattr(features, "FORWARD_TOKENS", 128)  # several batches, with padding
    cached = CachedFeatures(tokens, verifier, "hash", 10)
    for document in range(len(tokens)):
        row = tokens.token_ids[tokens.span(document)].long()[None]
        output = verifier.model(row, output_hidden_states=True)
        expected = output.hidden_states[-1][0]
        torch.testing.assert_close(cached.of([document]), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            expected @ verifier.head.T, output.logits[0], atol=1e-5, rtol=1e-5
        )
    recomputed = RecomputedFeatures(tokens, verifier).of([3, 1])
    torch.testing.assert_close(recomputed, cached.of([3, 1]), atol=1e-5, rtol=1e-5)


def test_they_are_computed_once_and_keyed_by_what_they_depend_on(
    verifier, tokens, cache, monkeypatch
):
    first = CachedFeatures(tokens, verifier, "hash", 10)
    assert len(list(cache.iterdir())) == 1

    def never(*_arguments):
        raise AssertionError("computed again")

    with monkeypatch.context() as patched:
        patched.setattr(features, "compute", never)
        again = CachedFeatures(tokens, verifier, "hash", 10)
        assert torch.equal(again.of([0]), first.of([0]))
        assert again.seconds == first.seconds > 0  # counted in every run that uses them
        with pytest.raises(AssertionError, match="computed again"):
            CachedFeatures(tokens, verifier, "another verifier", 10)
    CachedFeatures(tokens, verifier.to(torch.bfloat16), "hash", 10)
    assert len([path for path in cache.iterdir() if not path.name.startswith(".")]) == 2


def test_too_small_a_disk_is_refused_with_the_arithmetic(verifier, tokens, cache, monkeypatch):
    class Usage:
        free = 10

    monkeypatch.setattr(features.shutil, "disk_usage", lambda _: Usage)
    with pytest.raises(InputError, match=r"tokens x 32 x 4 bytes need .* GB.*recompute"):
        CachedFeatures(tokens, verifier, "hash", 10)


def test_the_cache_is_the_main_checkouts_also_from_dvcs_copies(monkeypatch, tmp_path):
    monkeypatch.delenv("EAGLE_CACHE")
    main = tmp_path / "project"
    copy = main / ".dvc" / "tmp" / "exps" / "tmpabc"
    copy.mkdir(parents=True)
    for folder in (main, copy):
        monkeypatch.chdir(folder)
        assert cache_folder() == Path(os.path.realpath(main)) / ".cache" / "eagle"
