"""Decodings step by step: the pieces are the text, and what is called rejected was drafted."""

import pytest
from transformers import AutoTokenizer

from eagle.decoding.speculative import Decoders
from eagle.decoding.tree import DynamicTree, Tree
from eagle.evaluation.race import Prompt, Race
from eagle.evaluation.samples import decode_samples
from eagle.tokens.tokenizer import load_tokenizer
from eagle.tracking import Progress
from tests.tiny import make_sentencepiece, settings

QUESTIONS = [{"turns": ["how is the cat", "why"]}, {"turns": ["what is blue"]}]
SHAPES = {
    "chain": Tree.chain(3),
    "static tree": Tree.from_paths([[0], [1], [0, 0], [1, 0], [1, 1]]),
    "dynamic tree": DynamicTree(tokens=6, depth=2, top_k=3),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_pieces_are_the_text_and_the_rejected_ones_are_not(
    verifier, echo, tiny_verifier, shape
):
    tokenizer = load_tokenizer(tiny_verifier)
    race = Race(
        [Prompt(1, "cats", 1, [3, 9, 4]), Prompt(1, "cats", 2, [5]), Prompt(2, "x", 1, [8])]
    )
    asked = settings("evaluate", maximum_new_tokens=20)
    with Progress("samples", 2, "texts", 1e9) as progress:
        samples = decode_samples(
            QUESTIONS, race, Decoders(verifier, echo), shape, tokenizer, asked, progress
        )
    assert [sample["question"] for sample in samples] == ["how is the cat", "what is blue"]
    accepted = rejected = 0
    for sample, prompt in zip(samples, ([3, 9, 4], [8]), strict=True):
        generation = Decoders(verifier, echo).speculate(prompt, 20, shape)
        pieces = [sample["first"]]
        for step in sample["steps"]:
            pieces += step["accepted"] + [piece for piece in [step["own"]] if piece is not None]
        assert len(pieces) == len(generation.token_ids)
        assert "".join(pieces) == tokenizer.decode(generation.token_ids).rstrip("\ufffd")
        counts = [len(step["accepted"]) for step in sample["steps"]]
        assert counts[:-1] == generation.accepted[:-1]
        accepted += sum(counts)
        rejected += sum(len(step["rejected"]) for step in sample["steps"])
    assert accepted and rejected


def test_a_character_of_several_tokens_stands_once_and_words_keep_their_space(tmp_path):
    from eagle.evaluation.samples import Step, _written

    tokenizer = AutoTokenizer.from_pretrained(make_sentencepiece(tmp_path / "pieces"))
    ids = tokenizer("the 🙂 cat", add_special_tokens=False)["input_ids"]
    steps = [Step(ids[1:3], ids[3], [ids[0]]), Step(ids[4:], ids[0], [])]
    first, *written = _written(tokenizer, ids, steps)
    pieces = [first, *written[0]["accepted"], written[0]["own"], *written[1]["accepted"]]
    assert "".join(pieces) == "the 🙂 cat"
    assert "\ufffd" not in "".join(pieces)
    assert written[1]["own"] is None  # it is behind the end of the text
