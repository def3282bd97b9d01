"""What the demo shows, in a terminal and without colours, and what ships for it."""

import hashlib
import io
import json
import subprocess

import pytest
import yaml
from rich.cells import cell_len
from rich.console import Console

from eagle.checksums import damaged
from eagle.decoding.speculative import Decoders
from eagle.evaluation.lossless import LosslessProof, Rounding, TextComparison
from eagle.evaluation.race import Race
from eagle.evaluation.samples import Sample
from eagle.tokens.tokenizer import load_tokenizer
from tests.conftest import ROOT
from tools.demo import (
    DEMO,
    DRAFTED,
    decode_both,
    first_of_categories,
    legend,
    parting,
    side_by_side,
    spelled,
    summary,
    verdict,
)

STEPS = [
    {"accepted": [" cat"], "own": " sat", "rejected": [" mat"]},
    {"accepted": [], "own": ":", "rejected": [" on"]},
    {"accepted": ["\n", "\n"], "own": "why", "rejected": []},
    {"accepted": ["?"], "own": None, "rejected": []},
]
IDENTICAL = TextComparison(identical=True)


def test_accepted_tokens_have_a_colour_or_stand_in_marks():
    sample = Sample(None, "the", STEPS)
    coloured = spelled(sample, colours=True)
    assert coloured.plain == "the cat sat:\n\nwhy?"
    assert [coloured.plain[s.start : s.end] for s in coloured.spans] == [" cat", "\n\n", "?"]
    marked = spelled(sample, colours=False)
    assert marked.plain == "the «cat» sat:«»\n\nwhy«?»"
    assert marked.spans == []


def test_both_texts_stand_side_by_side_in_80_columns(verifier, echo, tiny_verifier, monkeypatch):
    tokenizer, race = load_tokenizer(tiny_verifier), Race()
    question = {"question_id": 1, "category": "cats", "turns": ["how is the cat", "why"]}
    sample = decode_both(question, race, Decoders(verifier, echo), tokenizer)
    assert race.vanilla[0].token_ids == race.speculative[0].token_ids  # in float64
    assert parting(race) is None

    def shown(**console) -> str:
        page = Console(file=io.StringIO(), width=80, highlight=False, **console)
        page.print(legend(page), side_by_side(race.vanilla[0], sample, tokenizer, page))
        return page.file.getvalue()

    plain, coloured = shown(), shown(force_terminal=True, color_system="standard")
    monkeypatch.setenv("NO_COLOR", "1")
    without = shown(force_terminal=True, color_system="standard")
    assert "\x1b" not in plain and "«guessed»" in plain
    assert "\x1b[30;42mguessed" in coloured and "«" not in coloured
    assert "\x1b[30;42m" not in without and "«guessed»" in without
    assert max(map(cell_len, plain.split("\n"))) == 80
    assert plain.count("tokens/s") == 2
    assert plain.count("«") == 1 + sum(any(s["accepted"]) for s in sample.steps)
    text = " ".join(summary(race, LosslessProof([], [IDENTICAL], Rounding(0.0, 1.0))))
    tokens = 1 + sum(race.speculative[0].accepted) / race.speculative[0].verifier_steps
    assert f"step: {tokens:.2f} tokens a pass" in text
    assert "the same in 1 of 1 answers, token by token" in text


@pytest.mark.parametrize(
    "gap, rounding, said",
    [
        (0.2, 0.4, "the same in 1 of 2 answers; the others part at a near-tie"),
        (0.9, 0.4, "NOT LOSSLESS, the same in 1 of 2 answers"),
        (0.9, 1.5, "NOT LOSSLESS"),  # more than bfloat16 explains
    ],
)
def test_texts_that_differ_are_judged_by_what_rounding_explains(gap, rounding, said):
    parted = TextComparison(False, 3, gap)
    text = verdict(LosslessProof([], [IDENTICAL, parted], Rounding(rounding, 1.0)))
    assert text.startswith(said)
    assert f"up to {gap:.2f} apart" in text and f"by up to {rounding:.2f}" in text


def test_the_length_of_what_two_texts_share_is_shown():
    vanilla, other = (
        type("Generation", (), {"token_ids": ids})() for ids in ([1, 2, 3], [1, 2, 4])
    )
    note = parting(Race(vanilla=[vanilla], speculative=[other]))
    assert note.startswith("Here the first 2 tokens are the same")


def test_the_questions_are_the_first_of_their_categories():
    rows = [{"category": c, "n": n} for n, c in enumerate("aabacd")]
    assert [row["n"] for row in first_of_categories(rows, 3)] == [0, 2, 4]


def test_the_draft_that_ships_is_the_export_of_the_committed_run():
    """What dvc.lock says after `dvc repro` on another processor may differ from the commit's."""
    folder = ROOT / DEMO
    assert damaged(folder) == []
    assert sum(path.stat().st_size for path in folder.iterdir()) < 10e6
    lock = subprocess.check_output(["git", "show", "HEAD:dvc.lock"], cwd=ROOT, text=True)
    outs = yaml.load(lock, yaml.CSafeLoader)["stages"]["export_checkpoint"]["outs"]
    made = {out["path"]: out["md5"] for out in outs}
    for name in ("config.json", "model.safetensors"):
        found = hashlib.md5((folder / name).read_bytes(), usedforsecurity=False).hexdigest()
        assert found == made[f"models/export/vllm/{name}"], "run python -m tools.make_demo"
    config = json.loads((folder / "config.json").read_text())
    drafted = json.loads((folder / DRAFTED).read_text())
    assert len(drafted) == len(set(drafted)) == 8192
    assert min(drafted) >= 0 and max(drafted) < config["vocab_size"]
