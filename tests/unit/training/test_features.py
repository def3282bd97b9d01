"""Cached and replayed features are the verifier's, whichever documents are in the same batch."""

import pytest
import torch

from eagle.draft.vocabulary import Vocabulary, full_vocabulary, part_of_vocabulary
from eagle.training import features
from eagle.training.feature_cache import CachedFeatures
from eagle.training.features import Features, ReplayedFeatures, group_by_length
from eagle.training.loss import teach

DOCUMENTS = (5, 3, 1)


@pytest.fixture(autouse=True)
def several_batches(tmp_path, monkeypatch):
    """So few tokens in a batch that there are several, with padding."""
    monkeypatch.setitem(features.FORWARD_TOKENS, "cpu", 128)
    monkeypatch.setenv("EAGLE_CACHE", str(tmp_path))


@pytest.fixture(params=["all tokens", "forty tokens"])
def vocabulary(request, verifier, tokens) -> Vocabulary:
    if request.param == "all tokens":
        return full_vocabulary(verifier.head)
    return part_of_vocabulary(verifier.head, tokens.by_frequency(len(verifier.head))[:40])


@pytest.fixture(params=["cache", "replay"])
def source(request, verifier, tokens, vocabulary) -> Features:
    if request.param == "cache":
        return CachedFeatures(tokens, verifier, vocabulary, "hash", 10)
    return ReplayedFeatures(tokens, verifier, vocabulary)


def test_they_are_the_states_after_the_final_norm_and_the_teacher_is_theirs(
    verifier, tokens, vocabulary, source
):
    source.prepare(DOCUMENTS)
    for document in DOCUMENTS:
        row = tokens.token_ids[tokens.span(document)].long()[None]
        output = verifier.model(row, output_hidden_states=True)
        expected = output.hidden_states[-1][0]
        at = tokens.taught()[tokens.span(document)].nonzero()[:, 0][::2]
        states, teacher = source.of([document], [at])
        torch.testing.assert_close(states, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            expected @ verifier.head.T, output.logits[0], atol=1e-5, rtol=1e-5
        )
        direct = teach(expected[at], vocabulary)
        torch.testing.assert_close(teacher.mean, direct.mean, atol=1e-5, rtol=1e-5)
        assert torch.equal(teacher.likeliest, direct.likeliest)
        assert (teacher.likeliest < len(vocabulary.head)).all()


def test_several_documents_come_side_by_side(tokens, source):
    source.prepare(DOCUMENTS)
    taught = [tokens.taught()[tokens.span(d)].nonzero()[:, 0] for d in DOCUMENTS]
    together = source.of(list(DOCUMENTS), taught)
    alone = [source.of([d], [at]) for d, at in zip(DOCUMENTS, taught, strict=True)]
    assert torch.equal(together[0], torch.cat([states for states, _ in alone]))
    assert torch.equal(together[1].mean, torch.cat([teacher.mean for _, teacher in alone]))


def test_the_buffer_is_computed_once_until_other_documents_are_needed(
    verifier, tokens, monkeypatch
):
    computed, run = [], features._run_verifier

    def count(tokens, verifier, documents):
        computed.extend(documents)
        return run(tokens, verifier, documents)

    monkeypatch.setattr(features, "_run_verifier", count)
    replayed = ReplayedFeatures(tokens, verifier, full_vocabulary(verifier.head))
    for documents in ((5, 3, 1), (5, 3, 1), (2, 3)):
        replayed.prepare(documents)
    assert sorted(computed) == [1, 2, 3, 3, 5]


def test_documents_of_similar_length_share_a_forward_pass(verifier, tokens):
    groups = group_by_length(tokens, list(range(len(tokens))), verifier)
    assert sorted(document for group in groups for document in group) == list(range(len(tokens)))
    sizes = [len(group) * max(map(tokens.length, group)) for group in groups]
    assert 1 < len(groups) < len(tokens)
    assert all(size <= 128 for size, group in zip(sizes, groups, strict=True) if len(group) > 1)
    lengths = [tokens.length(document) for group in groups for document in group]
    assert lengths == sorted(lengths)
