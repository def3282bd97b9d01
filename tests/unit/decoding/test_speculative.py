"""Every decoder writes what the verifier alone writes, and counts what it accepted."""

import pytest
import torch

from eagle.decoding.kv_cache import Extent
from eagle.decoding.sampler import GREEDY, Sampler, Sampling
from eagle.decoding.sessions import DraftSession, Proposal, VerifierSession
from eagle.decoding.speculative import chain, speculate, vanilla
from eagle.decoding.tree import DynamicTree, Tree
from eagle.draft.checkpoint import load_draft, save_draft
from eagle.draft.draft import Draft, attend_within_documents, draft_config
from eagle.draft.vocabulary import full_vocabulary, part_of_vocabulary
from eagle.errors import InputError
from eagle.training.initialization import initialize_random
from eagle.verifier.admission import key_value_shapes
from eagle.verifier.verifier import Verifier
from tests.tiny import make_verifier
from tests.unit.decoding.test_acceptance import chi_square


def prompts(verifier, count: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randint(3, len(verifier.head), (4 + i % 7,), generator=generator).tolist()
        for i in range(count)
    ]


TREE = Tree.named("mc_sim_7b_63")
SHAPES = {
    "chain of 1": Tree.chain(1),
    "chain of 6": Tree.chain(6),
    "static tree": TREE,
    "dynamic tree": DynamicTree(tokens=16, depth=4, top_k=4),
    "dynamic tree of one level": DynamicTree(tokens=16, depth=1, top_k=4),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_decoder_is_lossless_in_float64(verifier, draft, echo, shape):
    accepted = 0
    for prompt in prompts(verifier, 6):
        reference = vanilla(verifier, prompt, 24)
        for drafter in (draft, echo):
            generation = speculate(verifier, drafter, prompt, 24, shape)
            assert generation.token_ids == reference.token_ids
            assert len(generation.accepted) == generation.verifier_steps
            emitted = sum(generation.accepted) + len(generation.accepted) + 1
            assert emitted >= len(generation.token_ids) > emitted - shape.depth - 1
            assert 0 < generation.draft_seconds < generation.decode_seconds
            accepted += sum(generation.accepted)
        assert reference.verifier_steps == len(reference.token_ids) - 1
    assert accepted > 0  # or the test never saw an accepted token


def test_a_tree_has_more_tokens_accepted_than_its_first_path(verifier, echo):
    chained, branched = (
        sum(sum(speculate(verifier, echo, p, 24, shape).accepted) for p in prompts(verifier, 6))
        for shape in (Tree.chain(TREE.depth), TREE)
    )
    assert branched > chained > 0


def test_a_trees_rows_are_verified_as_each_branch_alone(verifier):
    prompt, tokens = prompts(verifier, 1)[0], list(range(40, 40 + len(TREE)))
    tree, root = (shape.tensors(torch.device("cpu")) for shape in (TREE, Tree.chain(0)))
    with torch.inference_mode():
        session = VerifierSession(verifier, len(prompt) + len(TREE) + 1)
        session.begin(torch.tensor(prompt))
        features = session.step(torch.tensor(tokens), tree, Extent(len(prompt)))  # [T, H]
        branch = TREE.path(len(TREE) - 1)
        session.keep(torch.tensor(branch), len(branch))
        following = session.step(torch.tensor([7]), root, Extent(len(prompt) + len(branch)))
        for row in range(len(TREE)):
            path = TREE.path(row)
            alone = verifier.features(torch.tensor([prompt + [tokens[i] for i in path]]))[0]
            torch.testing.assert_close(features[path], alone[len(prompt) :], rtol=0, atol=1e-12)
        whole = torch.tensor([[*prompt, *(tokens[i] for i in branch), 7]])
        # rows that were not kept have no influence
        torch.testing.assert_close(
            following[0], verifier.features(whole)[0, -1], rtol=0, atol=1e-12
        )


def drafting(draft, verifier, shape) -> DraftSession:
    cache = DraftSession.new_cache(draft, verifier.head, 256)
    return DraftSession(draft, verifier, full_vocabulary(verifier.head), GREEDY, shape, cache)


def propose(session, features: torch.Tensor, next_tokens: list[int]) -> Proposal:
    """A tree after these pairs, which follow those of the proposals before."""
    tokens, count = torch.tensor(next_tokens), torch.tensor([len(next_tokens)])
    extent = Extent(int(session.cache.length))
    return session.propose(features, tokens, count, torch.empty(0), extent)


def test_a_dynamic_trees_rows_are_the_most_likely_paths(verifier, draft):
    """Compared with every path of two tokens, each computed by itself."""
    prompt = prompts(verifier, 1)[0]
    shape = DynamicTree(tokens=9, depth=2, top_k=4)
    with torch.inference_mode():
        features = verifier.features(torch.tensor([prompt]))[0]
        session = drafting(draft, verifier, shape)
        tree, tokens, probabilities = propose(session, features[:-1], prompt[1:])

        def after(*path: int) -> torch.Tensor:
            """Log-probabilities after the prompt and a path, from scratch."""
            states = features[:-1]
            for length in range(len(path) + 1):
                ids = torch.tensor([*prompt[1:], *path[:length]])
                hidden = draft(
                    states,
                    verifier.embedding[ids],
                    torch.arange(len(ids)),
                    attend_within_documents([len(ids)], "eager"),
                )
                states = torch.cat([states, hidden[-1:]])
            return (hidden[-1] @ verifier.head.T).log_softmax(-1)

        first = after().topk(4)
        scores = dict(zip(zip(first.indices.tolist(), strict=True), first.values, strict=True))
        for token, score in list(scores.items()):
            second = after(*token).topk(4)
            scores |= {
                (*token, following): score + more
                for following, more in zip(second.indices.tolist(), second.values, strict=True)
            }
    expected = sorted(scores, key=scores.get, reverse=True)[:8]
    paths = [path[1 : depth + 1] for path, depth in zip(tree.paths, tree.depths, strict=True)]
    rows = [tuple(tokens[path].tolist()) for path in paths[1:]]
    assert probabilities is None
    assert tokens[0] == prompt[-1]
    assert sorted(rows) == sorted(expected)


def test_drafting_from_some_tokens_alone_is_lossless_too(verifier, echo):
    accepted = []
    for tokens in (torch.arange(len(verifier.head)), torch.arange(0, len(verifier.head), 2)):
        vocabulary = part_of_vocabulary(verifier.head, tokens)
        generations = [chain(verifier, echo, p, 24, 4, vocabulary) for p in prompts(verifier, 12)]
        references = [vanilla(verifier, p, 24).token_ids for p in prompts(verifier, 12)]
        assert [generation.token_ids for generation in generations] == references
        accepted.append(sum(sum(generation.accepted) for generation in generations))
    assert accepted[0] > accepted[1] > 0


@pytest.fixture(scope="module")
def twelve(tmp_path_factory):
    """A verifier of twelve tokens, of which none stops."""
    folder = make_verifier(
        tmp_path_factory.mktemp("twelve") / "verifier", vocab_size=12, num_hidden_layers=1
    )
    model = Verifier.load(folder, torch.float64, torch.device("cpu")).model
    return Verifier(model, [99], key_value_shapes(model.config))


# Three short tests and nine long ones: if all is right, one in a thousand runs of all twelve fails.
SAMPLED_TESTS = 12
SAMPLINGS = (Sampling(1.0), Sampling(0.7, top_p=0.9), Sampling(1.3, top_k=3))
BRANCHED = Tree.from_paths([[0], [1], [2], [3], [0, 0], [0, 1], [1, 0]])
SAMPLED_SHAPES = (Tree.chain(2), BRANCHED, DynamicTree(tokens=8, depth=2, top_k=3))


@pytest.mark.parametrize(
    ("shape", "sampling", "texts"),
    [
        (Tree.chain(2), Sampling(1.3, top_p=0.95), 400),
        (BRANCHED, Sampling(1.3, top_p=0.95), 400),
        (DynamicTree(tokens=8, depth=2, top_k=3), Sampling(1.3, top_p=0.95), 400),
        *(
            pytest.param(shape, sampling, 10_000, marks=pytest.mark.long)
            for shape in SAMPLED_SHAPES
            for sampling in SAMPLINGS
        ),
    ],
)
def test_sampled_texts_have_the_verifiers_distribution(twelve, shape, sampling, texts):
    """End to end: the first three tokens, compared with their exact probabilities."""
    prompt = [3, 1, 4]
    draft = Draft(draft_config(None, twelve.config)).double()
    initialize_random(draft, 3)
    draft.fc.weight.data *= 40  # far from uniform, and from the verifier
    sampler = Sampler(sampling, torch.Generator().manual_seed(0))
    counts = torch.zeros(12, 12, 12)
    accepted = 0
    for _ in range(texts):
        generation = speculate(twelve, draft, prompt, 3, shape, sampler=sampler)
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
    counts, expected = counts[expected > 0], expected[expected > 0]
    # rare texts are pooled, because the chi-square test needs frequent cells
    order = expected.argsort()
    _, cells = (expected[order].cumsum(0) / 10).long().unique(return_inverse=True)
    pooled = torch.zeros(int(cells.max()) + 1, dtype=torch.float64)
    observed = pooled.clone().index_add_(0, cells, counts[order].double())
    pooled_expected = pooled.index_add_(0, cells, expected[order].double())
    assert chi_square(observed, pooled_expected) > 1e-3 / SAMPLED_TESTS


def test_drafting_with_the_cache_is_the_draft_over_the_whole_text(verifier, draft):
    """The first drafted tokens, computed step by step and from scratch, are equal."""
    ids = prompts(verifier, 1)[0] * 4
    features = verifier.features(torch.tensor([ids]))[0]
    session = drafting(draft, verifier, TREE)
    with torch.inference_mode():
        propose(session, features[:3], ids[1:4])  # what it drafted must not stay
        propose(session, features[3:7], ids[4:8])
        proposal = propose(session, features[7:9], ids[8:10])
        whole = draft(
            features[:9],
            verifier.embedding[torch.tensor(ids[1:10])],
            torch.arange(9),
            attend_within_documents([9], "eager"),
        )
    assert proposal.tokens[0] == ids[9]
    assert torch.equal(proposal.tokens[1:5], (verifier.head @ whole[-1]).topk(4).indices)


def test_a_stop_token_among_accepted_tokens_ends_the_text(verifier, echo):
    prompt = prompts(verifier, 3)[2]
    text = vanilla(verifier, prompt, 24).token_ids
    stop = text[5]
    ending = Verifier(verifier.model, [stop], verifier.key_value_shapes)
    expected = text[: text.index(stop) + 1]
    assert vanilla(ending, prompt, 24).token_ids == expected
    for shape in SHAPES.values():
        assert speculate(ending, echo, prompt, 24, shape).token_ids == expected


def test_what_does_not_fit_the_context_is_refused(verifier, draft):
    with pytest.raises(InputError, match="need 270 positions, the verifier has 256"):
        vanilla(verifier, [5] * 250, 20)
    with pytest.raises(InputError, match="need 259 positions"):
        speculate(verifier, draft, [5] * 250, 4, TREE)
    with pytest.raises(InputError, match="the prompt has no token"):
        vanilla(verifier, [], 4)


def test_a_tree_wider_than_the_vocabulary_is_refused(verifier, draft):
    three = part_of_vocabulary(verifier.head, torch.tensor([3, 4, 5]))
    for shape in (TREE, DynamicTree(tokens=8, depth=2, top_k=4)):
        with pytest.raises(InputError, match="has 4 side by side, only 3 can be drafted"):
            speculate(verifier, draft, [5], 4, shape, three)


def test_the_text_ends_at_its_length_however_much_was_accepted(verifier, echo):
    for length in (1, 2, 3):
        text = speculate(verifier, echo, prompts(verifier, 1)[0], length, TREE).token_ids
        assert text == vanilla(verifier, prompts(verifier, 1)[0], length).token_ids
        assert len(text) == length


def test_casting_a_draft_leaves_its_rotary_frequencies(verifier, draft):
    copy = Draft(draft.config)
    before = copy.rotary.inv_freq.clone()
    assert copy.cast(torch.bfloat16).fc.weight.dtype == torch.bfloat16
    assert torch.equal(copy.rotary.inv_freq, before)


def test_a_wrong_chain_is_caught(verifier, echo, monkeypatch):
    """The tests can fail: a rule that accepts every drafted token is not lossless."""
    monkeypatch.setattr(
        "eagle.decoding.steps.accept_greedy", lambda tree, *_: tree.depths.argmax()[None]
    )
    assert any(
        chain(verifier, echo, prompt, 24, 4).token_ids != vanilla(verifier, prompt, 24).token_ids
        for prompt in prompts(verifier, 6)
    )


def test_a_saved_draft_decodes_alike(verifier, echo, tmp_path):
    save_draft(echo.float(), tmp_path / "d")
    prompt = prompts(verifier, 1)[0]
    again = chain(verifier, load_draft(tmp_path / "d").double(), prompt, 16, 4)
    assert again.accepted == chain(verifier, echo.double(), prompt, 16, 4).accepted
