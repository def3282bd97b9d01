"""The chain writes what the verifier alone writes, and counts what it accepted."""

import pytest
import torch

from eagle.acceptance import accept_greedy
from eagle.checkpoint import load_draft, save_draft
from eagle.decoding import chain, vanilla
from eagle.draft import Draft, attend_within_documents, draft_config
from eagle.errors import InputError
from eagle.initialization import initialize_random
from eagle.loss import part_of_vocabulary, whole_vocabulary
from eagle.lossless import Comparison, compare, reference_texts, rounding_difference
from eagle.verifier import Verifier


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
    """A draft that hands its input feature on, so that its head repeats the verifier's choice:
    often right on a verifier that repeats itself, which an untrained draft never is."""
    echo = Draft(draft_config(None, verifier.config)).double()
    for parameter in echo.parameters():
        parameter.data.zero_()
    echo.fc.weight.data[:, verifier.config.hidden_size :] = torch.eye(verifier.config.hidden_size)
    return echo


def prompts(verifier, count: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randint(3, len(verifier.head), (4 + i % 7,), generator=generator).tolist()
        for i in range(count)
    ]


def test_accepted_is_the_length_of_the_agreeing_beginning():
    chosen = torch.tensor([5, 6, 7, 8])
    for drafted, accepted in (([5, 6, 7], 3), ([5, 0, 7], 1), ([0, 6, 7], 0)):
        assert accept_greedy(torch.tensor(drafted), chosen) == accepted


@pytest.mark.parametrize("draft_length", [1, 4, 6])
def test_the_chain_is_lossless_in_float64(verifier, draft, echo, draft_length):
    accepted = 0
    for prompt in prompts(verifier, 12):
        plain = vanilla(verifier, prompt, 24)
        for drafter in (draft, echo):
            fast = chain(verifier, drafter, prompt, 24, draft_length)
            assert fast.token_ids == plain.token_ids
            assert len(fast.accepted) == fast.verifier_steps
            emitted = sum(fast.accepted) + len(fast.accepted) + 1
            assert emitted >= len(fast.token_ids) > emitted - draft_length - 1
            accepted += sum(fast.accepted)
        assert plain.verifier_steps == len(plain.token_ids) - 1
    assert accepted > 0  # or the test never saw an accepted token


def test_drafting_from_some_tokens_alone_is_lossless_too(verifier, echo):
    accepted = []
    for tokens in (torch.arange(len(verifier.head)), torch.arange(0, len(verifier.head), 2)):
        vocabulary = part_of_vocabulary(verifier.head, tokens)
        fast = [chain(verifier, echo, p, 24, 4, vocabulary) for p in prompts(verifier, 12)]
        plain = [vanilla(verifier, p, 24).token_ids for p in prompts(verifier, 12)]
        assert [generation.token_ids for generation in fast] == plain
        accepted.append(sum(sum(generation.accepted) for generation in fast))
    assert accepted[0] > accepted[1] > 0


def test_vanilla_is_transformers_generate(verifier):
    for prompt, reference in zip(
        prompts(verifier, 8), reference_texts(verifier, prompts(verifier, 8), 24), strict=True
    ):
        assert vanilla(verifier, prompt, 24).token_ids == reference


def test_drafting_with_the_cache_is_the_draft_over_the_whole_text(verifier, draft):
    """The first drafted token after any accepted text: incremental equals from scratch."""
    from eagle.decoding import _DraftSession

    ids = prompts(verifier, 1)[0] * 4
    features = verifier.features(torch.tensor([ids]))[0]
    session = _DraftSession(draft, verifier, whole_vocabulary(verifier.head))
    with torch.inference_mode():
        session.propose(features[:3], ids[1:4], 3)  # its own guesses must leave no trace
        session.propose(features[3:7], ids[4:8], 2)
        drafted = session.propose(features[7:9], ids[8:10], 1)
        whole = draft(
            features[:9],
            verifier.embedding[torch.tensor(ids[1:10])],
            torch.arange(9),
            attend_within_documents([9], "eager"),
        )
    assert int(drafted[0]) == int((verifier.head @ whole[-1]).argmax())


def test_a_stop_token_inside_an_accepted_run_ends_the_text(verifier, echo):
    prompt = prompts(verifier, 3)[2]
    plain = vanilla(verifier, prompt, 24)
    stop = plain.token_ids[5]
    ending = Verifier(verifier.model, [stop])
    expected = plain.token_ids[: plain.token_ids.index(stop) + 1]
    assert vanilla(ending, prompt, 24).token_ids == expected
    assert chain(ending, echo, prompt, 24, 6).token_ids == expected


def test_what_does_not_fit_the_context_is_refused(verifier, draft):
    with pytest.raises(InputError, match="need 270 positions, the verifier has 256"):
        vanilla(verifier, [5] * 250, 20)
    with pytest.raises(InputError, match="need 258 positions"):
        chain(verifier, draft, [5] * 250, 4, 4)


def test_a_difference_is_lossless_only_as_a_proven_tie(verifier):
    prompt = prompts(verifier, 1)[0]
    text = vanilla(verifier, prompt, 8).token_ids
    other = [*text[:3], (text[3] + 1) % 100, *text[4:]]
    same, changed, shorter = compare(
        lambda: verifier, [prompt] * 3, [text, other, text[:5]], [text] * 3
    )
    assert same == Comparison(identical=True)
    assert same.lossless()
    assert changed.first_difference == 3
    assert changed.logit_gap > 1e-3
    assert not changed.lossless()
    assert changed.lossless(tie=changed.logit_gap)
    assert not shorter.lossless()
    assert not shorter.lossless(tie=1e9)
    assert Comparison(False, 3, 5e-4).lossless()


def test_rounding_is_measured_between_the_two_ways_of_verifying(verifier, tiny_verifier):
    prompt = prompts(verifier, 1)[0]
    text = vanilla(verifier, prompt, 40).token_ids
    assert rounding_difference(verifier, prompt, text) < 1e-10
    coarse = Verifier.load(tiny_verifier, torch.float32, torch.device("cpu"))
    assert 0 < rounding_difference(coarse, prompt, text) < 1e-3


def test_casting_a_draft_leaves_its_rotary_frequencies(verifier, draft):
    copy = Draft(draft.config)
    before = copy.rotary.inv_freq.clone()
    assert copy.cast(torch.bfloat16).fc.weight.dtype == torch.bfloat16
    assert torch.equal(copy.rotary.inv_freq, before)


def test_a_wrong_chain_is_caught(verifier, echo, monkeypatch):
    """The tests' test: a rule that lets every drafted token stand is not lossless."""
    monkeypatch.setattr("eagle.decoding.accept_greedy", lambda drafted, _chosen: len(drafted))
    assert any(
        chain(verifier, echo, prompt, 24, 4).token_ids != vanilla(verifier, prompt, 24).token_ids
        for prompt in prompts(verifier, 6)
    )


def test_a_saved_draft_decodes_alike(verifier, echo, tmp_path):
    save_draft(echo.float(), tmp_path / "d")
    prompt = prompts(verifier, 1)[0]
    again = chain(verifier, load_draft(tmp_path / "d").double(), prompt, 16, 4)
    assert again.accepted == chain(verifier, echo.double(), prompt, 16, 4).accepted
