"""Cached features are the verifier's, whatever shares a batch, and are found again."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from eagle.draft.vocabulary import full_vocabulary, part_of_vocabulary
from eagle.errors import InputError
from eagle.tokens.tokenization import tokenize
from eagle.tracking import Progress
from eagle.training import features
from eagle.training.feature_cache import CachedFeatures, cache_folder
from eagle.training.features import ReplayedFeatures
from eagle.training.loss import teach
from eagle.verifier.verifier import Verifier
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


def cached(tokens, verifier, vocabulary=None, name="hash") -> CachedFeatures:
    return CachedFeatures(tokens, verifier, vocabulary or full_vocabulary(verifier.head), name, 10)


def nothing(documents) -> list[torch.Tensor]:
    return [torch.tensor([], dtype=torch.int64)] * len(documents)


def test_they_are_the_states_after_the_final_norm(verifier, tokens, monkeypatch):
    monkeypatch.setitem(features.FORWARD_TOKENS, "cpu", 128)  # several batches, with padding
    kept = cached(tokens, verifier)
    for document in range(len(tokens)):
        row = tokens.token_ids[tokens.span(document)].long()[None]
        output = verifier.model(row, output_hidden_states=True)
        expected = output.hidden_states[-1][0]
        states, _ = kept.of([document], nothing([document]))
        torch.testing.assert_close(states, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            expected @ verifier.head.T, output.logits[0], atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("part", [False, True])
def test_kept_and_replayed_ones_and_their_teacher_are_the_same(verifier, tokens, monkeypatch, part):
    monkeypatch.setitem(features.FORWARD_TOKENS, "cpu", 128)
    vocabulary = full_vocabulary(verifier.head)
    if part:
        vocabulary = part_of_vocabulary(verifier.head, tokens.by_frequency(len(verifier.head))[:40])
    replayed = ReplayedFeatures(tokens, verifier, vocabulary)
    replayed.prepare((5, 3, 1))
    documents = [3, 1]
    taught = [tokens.taught()[tokens.span(d)].nonzero()[:, 0] for d in documents]
    positions = [at[::2] for at in taught]
    given = [
        source.of(documents, positions)
        for source in (cached(tokens, verifier, vocabulary), replayed)
    ]
    for states, teacher in given:
        torch.testing.assert_close(states, given[0][0], atol=1e-5, rtol=1e-5)
        parts = states.split([tokens.length(document) for document in documents])
        at_positions = torch.cat([p[at] for p, at in zip(parts, positions, strict=True)])
        expected = teach(at_positions, vocabulary)
        torch.testing.assert_close(teacher.mean, expected.mean, atol=1e-5, rtol=1e-5)
        assert torch.equal(teacher.likeliest, expected.likeliest)
        assert (teacher.likeliest < len(vocabulary.head)).all()


def test_they_are_computed_once_and_keyed_by_what_they_depend_on(
    verifier, tokens, cache, monkeypatch
):
    first = cached(tokens, verifier)
    assert len(list(cache.iterdir())) == 2  # features, teacher

    def never(*_arguments):
        raise AssertionError("computed again")

    with monkeypatch.context() as patched:
        patched.setattr(features, "compute", never)
        again = cached(tokens, verifier)
        assert torch.equal(again.of([0], nothing([0]))[0], first.of([0], nothing([0]))[0])
        assert again.seconds == first.seconds > 0  # counted in every run that uses them
        part = part_of_vocabulary(verifier.head, torch.arange(40))
        cached(tokens, verifier, part)  # another teacher of the same features
        with pytest.raises(AssertionError, match="computed again"):
            cached(tokens, verifier, name="another verifier")
    cached(tokens, verifier.to(torch.bfloat16))
    assert len([path for path in cache.iterdir() if not path.name.startswith(".")]) == 5


@pytest.mark.parametrize("harm", ["a flipped byte", "a cut"])
def test_a_changed_file_is_computed_again_and_said(verifier, tokens, cache, capsys, harm):
    right = cached(tokens, verifier).of([0], nothing([0]))[0].clone()
    (path,) = cache.glob("*/features.bin")
    content = bytearray(path.read_bytes())
    content[100] ^= 0xFF
    path.write_bytes(content if harm == "a flipped byte" else content[:-4])
    again = cached(tokens, verifier)
    assert "changed since it was written" in capsys.readouterr().err
    torch.testing.assert_close(again.of([0], nothing([0]))[0], right)


def test_the_caches_unused_for_longest_make_room(verifier, tokens, cache, monkeypatch):
    for name, age in (("oldest", 300), ("older", 200)):
        (cache / name).mkdir(parents=True)
        with (cache / name / "features.bin").open("wb") as file:
            file.truncate(10**9)
        os.utime(cache / name, (0, 1e9 - age))
    real = shutil.disk_usage

    def full_until_one_is_gone(path):
        usage = real(path)
        return usage._replace(free=usage.free if not (cache / "oldest").exists() else 10)

    monkeypatch.setattr(features.shutil, "disk_usage", full_until_one_is_gone)
    cached(tokens, verifier)
    assert not (cache / "oldest").exists()
    assert (cache / "older").exists()


def test_what_a_killed_run_left_is_removed_and_what_another_fills_is_not(verifier, tokens, cache):
    for name in (".killed.partial", ".filling.partial"):
        (cache / name).mkdir()
        (cache / name / features.LOCK).touch()
    with (cache / ".filling.partial" / features.LOCK).open() as lock:
        features.fcntl.flock(lock, features.fcntl.LOCK_EX)
        kept = cached(tokens, verifier)
    assert [path.name for path in cache.glob(".*")] == [".filling.partial"]
    folders = [path for path in cache.glob("[!.]*")]
    assert len(folders) == 2
    assert not any((folder / features.LOCK).exists() for folder in folders)
    assert len(kept.features) == len(tokens.token_ids)


def test_too_small_a_disk_is_refused_with_the_arithmetic(verifier, tokens, cache, monkeypatch):
    class Usage:
        free = 10

    monkeypatch.setattr(features.shutil, "disk_usage", lambda _: Usage)
    with pytest.raises(InputError, match=r"tokens x 32 x 4 bytes need .* GB.*replay"):
        cached(tokens, verifier)


def test_the_cache_is_the_main_checkouts_also_from_dvcs_copies(monkeypatch, tmp_path):
    monkeypatch.delenv("EAGLE_CACHE")
    main = tmp_path / "project"
    copy = main / ".dvc" / "tmp" / "exps" / "tmpabc"
    copy.mkdir(parents=True)
    for folder in (main, copy):
        monkeypatch.chdir(folder)
        assert cache_folder() == Path(os.path.realpath(main)) / ".cache" / "eagle"
