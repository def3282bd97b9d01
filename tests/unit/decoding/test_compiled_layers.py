"""Compiled layers: without a break, one compilation for a shape, the same texts, or said aloud."""

import gc
import weakref

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from eagle.decoding.speculative import Decoders, Launch, vanilla
from eagle.decoding.tree import Tree
from eagle.draft.draft import Draft, draft_config
from eagle.training.initialization import initialize_random
from eagle.verifier.verifier import Verifier
from tests.families import make_family
from tests.unit.decoding.test_families import CASES

CHAIN, TREE = Tree.chain(2), Tree.named("mc_sim_7b_63")
PROMPT, TOKENS = [5, 9, 30, 41], 12


@pytest.fixture(autouse=True)
def nothing_compiled_before():
    torch._dynamo.reset()


def draft_for(verifier: Verifier) -> Draft:
    draft = Draft(draft_config(None, verifier.config))
    initialize_random(draft, 0)
    return draft.cast(verifier.head.dtype)


def test_a_shape_is_compiled_once_for_all_layers_and_texts(verifier, echo):
    backend = CompileCounterWithBackend("aot_eager")
    decoders = Decoders(verifier, echo, launch=Launch(compiled=True, how={"backend": backend}))
    for number in range(3):
        prompt = [*PROMPT, number]
        expected = vanilla(verifier, prompt, TOKENS).token_ids
        assert decoders.vanilla(prompt, TOKENS).token_ids == expected
        assert decoders.speculate(prompt, TOKENS, TREE).token_ids == expected
    assert decoders.fixed
    assert len(verifier.layers) == backend.frame_count == 2  # vanilla's and the tree's
    assert all("forward" not in vars(layer) for layer in verifier.layers)


@pytest.mark.parametrize("family", CASES)
def test_verifiers_with_other_attention_are_compiled_too(family, tmp_path, capsys):
    folder = make_family(family, tmp_path / "verifier", **CASES[family])
    verifier = Verifier.load(folder, torch.float32, torch.device("cpu"))
    launch = Launch(compiled=True, how={"backend": "eager"})
    decoders = Decoders(verifier, draft_for(verifier), launch=launch)
    expected = vanilla(verifier, PROMPT, TOKENS).token_ids
    assert decoders.speculate(PROMPT, TOKENS, CHAIN).token_ids == expected
    assert capsys.readouterr().out == ""


def test_where_nothing_can_be_compiled_one_line_says_so(verifier, echo, capsys):
    def lacking(*_):
        raise RuntimeError("Failed to find C compiler")

    launch = Launch(compiled=True, how={"backend": lacking})
    decoders = Decoders(verifier, echo, launch=launch)
    for number in range(2):
        prompt = [*PROMPT, number]
        expected = vanilla(verifier, prompt, TOKENS).token_ids
        assert decoders.vanilla(prompt, TOKENS).token_ids == expected
        assert decoders.speculate(prompt, TOKENS, CHAIN).token_ids == expected
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("decoding: llama cannot be compiled (")
    assert "Failed to find C compiler" in line


def test_compiled_layers_do_not_keep_a_verifier_in_memory(tiny_verifier):
    verifier = Verifier.load(tiny_verifier, torch.float32, torch.device("cpu"))
    launch = Launch(compiled=True, how={"backend": "aot_eager"})
    decoders = Decoders(verifier, launch=launch)
    decoders.vanilla(PROMPT, 3)
    assert decoders.fixed
    head = weakref.ref(verifier.head)
    del verifier, decoders
    gc.collect()
    assert head() is None


@pytest.mark.long  # a minute of compiling C++
def test_compiled_kernels_round_as_separate_ones_do(tiny_verifier):
    verifier = Verifier.load(tiny_verifier, torch.bfloat16, torch.device("cpu"))
    draft = draft_for(verifier)
    as_they_are, compiled = (
        Decoders(verifier, draft, launch=launch)
        for launch in (Launch(compiled=True, how={"backend": "eager"}), Launch(compiled=True))
    )
    for shape in (None, TREE):
        logits = []
        for decoders in (as_they_are, compiled):
            if shape is None:
                decoders.vanilla(PROMPT, TOKENS)
            else:
                decoders.speculate(PROMPT, TOKENS, shape)
            assert decoders.fixed
            logits.append([buffer.clone() for buffer in decoders.session.cache.buffers.values()])
        assert all(map(torch.equal, *logits))
