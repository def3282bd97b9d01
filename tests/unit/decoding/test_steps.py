"""What a CUDA graph asks of a step: no look at a number, and everything stays where it is."""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from eagle.decoding.kv_cache import Extent
from eagle.decoding.sampler import GREEDY, Sampler, Sampling
from eagle.decoding.sessions import DraftSession, VerifierSession
from eagle.decoding.speculative import Decoders, Launch, vanilla
from eagle.decoding.steps import SpeculativeStep, VanillaStep
from eagle.decoding.tree import DynamicTree, Tree
from eagle.draft.draft import Draft, draft_config
from eagle.draft.vocabulary import part_of_vocabulary
from eagle.verifier.verifier import Verifier
from tests.families import make_family
from tests.unit.decoding.test_families import CASES

FIXED = Extent(0, fixed=256)
SHAPES = {
    "chain": Tree.chain(4),
    "static tree": Tree.named("mc_sim_7b_63"),
    "dynamic tree": DynamicTree(tokens=12, depth=3, top_k=3),
}
SAMPLERS = {"greedy": GREEDY, "sampled": Sampler(Sampling(0.7, top_p=0.9, top_k=40))}


class FixedDecoders(Decoders):
    """What is captured on a GPU, one kernel at a time."""

    fixed = True


class OnMetaAlone(TorchDispatchMode):
    """Every tensor that an operation reads or makes is on the meta device.

    There, item, tolist, nonzero, cpu and a tensor's truth raise. A copy from the host to the device
    does not, and no graph may hold one.
    """

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        result = operation(*arguments, **(keywords or {}))
        for value in tree_leaves((arguments, keywords, result)):
            assert not isinstance(value, Tensor) or value.is_meta, operation
        return result


def steps_on(device: str, verifier: Verifier, sampler: Sampler, shape):
    """Both kinds of steps of a verifier that is on this device, with a draft of its shape."""
    draft = Draft(draft_config(None, verifier.config)).cast(verifier.head.dtype).to(device)
    vocabulary = part_of_vocabulary(verifier.head, torch.arange(0, 64, 2))
    session = VerifierSession(verifier, FIXED.fixed)
    cache = DraftSession.new_cache(draft, verifier.head, FIXED.fixed)
    drafting = DraftSession(draft, verifier, vocabulary, sampler, shape, cache)
    return VanillaStep(session, sampler), SpeculativeStep(session, drafting)


def run_through(verifier: Verifier, sampler: Sampler, shape) -> None:
    """What graphs are captured of, on the meta device."""
    one_token, step = steps_on("meta", verifier, sampler, shape)
    with torch.inference_mode(), OnMetaAlone():
        assert one_token.run(FIXED).shape == (1,)
        proposal = step.draft(shape.depth + 1, FIXED)
        assert proposal.tokens.shape == (shape.size,)
        assert step.verify(proposal, FIXED).shape == (shape.depth + 2,)


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_captured_step_never_looks_at_a_number(tiny_verifier, shape, sampler):
    verifier = Verifier.load(tiny_verifier, torch.bfloat16, torch.device("cpu"))
    verifier.model.to("meta")
    run_through(verifier, sampler, shape)


@pytest.mark.parametrize("family", CASES)
def test_so_do_those_of_verifiers_with_other_attention(family, tmp_path):
    folder = make_family(family, tmp_path / "verifier", **CASES[family])
    verifier = Verifier.load(folder, torch.bfloat16, torch.device("cpu"))
    verifier.model.to("meta")
    run_through(verifier, GREEDY, SHAPES["static tree"])


def places(tensors) -> list[tuple]:
    return [(t.data_ptr(), t.shape, t.stride(), t.dtype) for t in tensors]


@pytest.mark.parametrize(
    ("shape", "sampling"),
    [
        (SHAPES["chain"], None),
        (SHAPES["static tree"], Sampling(0.7, top_p=0.9)),
        (SHAPES["dynamic tree"], None),
    ],
    ids=SHAPES,
)
def test_over_a_hundred_steps_nothing_moves(verifier, echo, shape, sampling):
    """And with a fixed extent the texts are those of the steps that read only what there is."""
    reference, decoders = (
        kind(verifier, echo, None, Sampler(sampling, torch.Generator().manual_seed(0)))
        for kind in (Decoders, FixedDecoders)
    )
    seen = {"draft": [], "verify": [], "vanilla": []}
    run = decoders._run

    def watched(key, step):
        speculative, one_token = decoders.steps.get(shape), decoders.one_token
        kept = [one_token.token, one_token.uniforms]
        if speculative is not None:
            kept += [getattr(speculative, name) for name in ("features", "tokens", "count")]
            kept.append(speculative.uniforms)
        for cache in (decoders.session.cache, decoders.draft_cache):
            kept += [cache.length, *cache.buffers.values()]
        before = places(kept)
        output = run(key, step)
        assert places(kept) == before
        outputs = [(t.shape, t.dtype) for t in tree_leaves(output) if t is not None]
        seen[key[0]].append((before, outputs))
        return output

    decoders._run = watched
    for number in range(6):
        prompt = [5 + number, 9, 30, 41]
        expected, fixed = (
            [one.speculate(prompt, 60, shape), one.vanilla(prompt, 60)]
            for one in (reference, decoders)
        )
        for one, other in zip(expected, fixed, strict=True):
            assert (one.token_ids, one.accepted) == (other.token_ids, other.accepted)
    assert sum(expected[0].accepted) > 0
    for steps in seen.values():
        assert len(steps) > 100
        assert all(step == steps[0] for step in steps)


def test_where_nothing_can_be_captured_one_line_says_so(verifier, echo, capsys):
    """Asked for graphs on a CPU, which has none."""
    decoders = Decoders(verifier, echo, launch=Launch(graphs=True))
    for number in range(2):
        prompt = [5, 9, 30 + number]
        expected = vanilla(verifier, prompt, 12).token_ids
        assert decoders.vanilla(prompt, 12).token_ids == expected
        assert decoders.speculate(prompt, 12, Tree.chain(3)).token_ids == expected
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("decoding: llama cannot be captured as CUDA graphs (")


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_captured_steps_write_the_texts_of_uncaptured_ones(tiny_verifier, shape, compiled):
    """In float32 with TF32 off, across the edge of an extent, and again in kept buffers."""
    torch.backends.cuda.matmul.allow_tf32 = False
    verifier = Verifier.load(tiny_verifier, torch.float32, torch.device("cuda"))
    verifier.stop_token_ids = []
    draft = Draft(draft_config(None, verifier.config)).cuda()
    eager, captured = (
        Decoders(verifier, draft, launch=launch)
        for launch in (Launch(), Launch(graphs=True, compiled=compiled))
    )
    for prompt in ([5] * 180, [7, 8, 9]):
        expected = eager.vanilla(prompt, 60).token_ids
        for _ in range(2):
            assert captured.vanilla(prompt, 60).token_ids == expected
            generation = captured.speculate(prompt, 60, shape)
            assert generation.token_ids == expected
            assert 0 < generation.draft_seconds < generation.decode_seconds
    assert captured.capturing  # it did not fall back
    assert (captured.compiled is not None) == compiled
    assert captured.graphs.captured
