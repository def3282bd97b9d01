"""Decoding with verifiers whose attention is not Llama's writes what transformers writes."""

import pytest
import torch

from eagle.decoding.speculative import speculate, vanilla
from eagle.decoding.tree import DynamicTree, Tree
from eagle.draft.draft import Draft, draft_config
from eagle.evaluation.lossless import reference_texts
from eagle.training.initialization import initialize_random
from eagle.verifier.verifier import Verifier
from tests.families import make_family

PROMPTS = [[5, 9, 30, 41, 7, 8, 12, 77, 3, 60, 61, 5], [11, 12, 13]]
TOKENS = 24
SHAPES = [
    Tree.chain(4),
    Tree.from_paths([(0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0)]),
    DynamicTree(tokens=9, depth=3, top_k=3),
]
# a window of 6 tokens is shorter than the prompts, and than what a tree verifies
CASES = {
    "llama": {},
    "mistral": {"sliding_window": 6},
    "gemma3_text": {"sliding_window": 6, "num_hidden_layers": 6},
    "olmo3": {"sliding_window": 6, "num_hidden_layers": 4},
    "gpt_oss": {"sliding_window": 6},
    "deepseek_v3": {},
    "falcon": {},
    "qwen2_moe": {"sliding_window": 0},
    "gemma4_text": {"sliding_window": 6, "num_hidden_layers": 6},
}


@pytest.mark.parametrize("family", CASES)
def test_every_decoder_writes_what_transformers_does(family, tmp_path):
    folder = make_family(family, tmp_path / "verifier", **CASES[family])
    verifier = Verifier.load(folder, torch.float64, torch.device("cpu"))
    draft = Draft(draft_config(None, verifier.config)).double()
    initialize_random(draft, 0)
    for prompt in PROMPTS:
        (expected,) = reference_texts(verifier, [prompt], TOKENS)
        assert vanilla(verifier, prompt, TOKENS).token_ids == expected
        for shape in SHAPES:
            assert speculate(verifier, draft, prompt, TOKENS, shape).token_ids == expected
