"""The chain writes what the verifier alone writes, and counts what it accepted."""

import pytest
import torch

from eagle.acceptance import Sampling
from eagle.checkpoint import load_draft, save_draft
from eagle.decoding import GREEDY, Choice, chain, vanilla
from eagle.draft import Draft, attend_within_documents, draft_config
from eagle.errors import InputError
from eagle.initialization import initialize_random
from eagle.loss import part_of_vocabulary, whole_vocabulary
from eagle.lossless import Comparison, compare, reference_texts, rounding_difference
from eagle.verifier import Verifier
from tests.tiny import make_verifier
from tests.unit.test_acceptance import chi_square


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


@pytest.fixture(scope="module")
def twelve(tmp_path_factory):
    """A verifier of twelve tokens, of which none stops."""
    folder = make_verifier(tmp_path_factory.mktemp("twelve") / "verifier", vocab_size=12)
    model = Verifier.load(folder, torch.float64, torch.device("cpu")).model
    return Verifier(model, [99])


LONG = pytest.mark.proof


@pytest.mark.parametrize(
    ("sampling", "texts"),
    [
        (Sampling(1.3, top_p=0.95), 1200),
        pytest.param(Sampling(1.0), 10_000, marks=LONG),
        pytest.param(Sampling(0.7, top_p=0.9), 10_000, marks=LONG),
        pytest.param(Sampling(1.3, top_k=5), 10_000, marks=LONG),
    ],
)
def test_sampled_chains_have_the_verifiers_distribution(twelve, sampling, texts):
    """End to end: the first two tokens after the prefill's, against their exact probabilities."""
    prompt = [3, 1, 4]
    draft = Draft(draft_config(None, twelve.config)).double()
    initialize_random(draft, 3)
    draft.fc.weight.data *= 40  # has an opinion, which is not the verifier's
    choice = Choice(sampling, torch.Generator().manual_seed(0))
    counts = torch.zeros(12, 12, 12)
    accepted = 0
    for _ in range(texts):
        generation = chain(twelve, draft, prompt, 3, 2, choice=choice)
        counts[tuple(generation.token_ids)] += 1
        accepted += sum(generation.accepted)
    assert accepted > texts / 10
    pairs = torch.cartesian_prod(torch.arange(12), torch.arange(12))
    rows = torch.cat([torch.tensor(prompt).expand(144, -1), pairs], dim=1)
    logits = twelve.model(rows).logits[:, 2:]  # after the prompt, one token, two tokens
    p = sampling.probabilities(logits)
    first, second = pairs.T
    expected = p[:, 0].gather(1, first[:, None])[:, 0] * p[:, 1].gather(1, second[:, None])[:, 0]
    expected = (expected[:, None] * p[:, 2]).flatten() * texts
    counts = counts.flatten()
    assert counts[expected == 0].sum() == 0
    # pooled until every cell is expected often enough for the test to hold
    order = expected.argsort()
    _, cells = (expected[order].cumsum(0) / 10).long().unique(return_inverse=True)
    pooled = torch.zeros(int(cells.max()) + 1, dtype=torch.float64)
    observed = pooled.clone().index_add_(0, cells, counts[order].double())
    wanted = pooled.index_add_(0, cells, expected[order].double())
    assert chi_square(observed, wanted) > 1e-3 / 4


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
    session = _DraftSession(draft, verifier, whole_vocabulary(verifier.head), GREEDY)
    with torch.inference_mode():
        session.propose(features[:3], ids[1:4], 3)  # its own guesses must leave no trace
        session.propose(features[3:7], ids[4:8], 2)
        drafted, _ = session.propose(features[7:9], ids[8:10], 1)
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
