"""What ships as the sample and as the bench is written from resources/prompts/sample.yaml."""

import json

from tests.conftest import ROOT
from tools.make_sample import asked, unanswered
from tools.sample_prompts import bench_prompts, training_prompts


def test_the_shipped_bench_is_the_held_out_prompts():
    lines = (ROOT / "resources/bench/default.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == bench_prompts()


def test_every_prompt_is_one_shipped_conversation():
    """User and system turns; a prompt that changes needs its replies written anew."""
    shipped = {}
    for path in sorted((ROOT / "resources/conversations").glob("*/*.json")):
        for row in json.loads(path.read_text()):
            texts = [turn["value"] for turn in row["conversations"] if turn["from"] != "gpt"]
            assert row["id"] not in shipped
            shipped[row["id"]] = tuple(texts)
    prompts = training_prompts()
    assert shipped == {row["id"]: asked(unanswered(row)["messages"]) for row in prompts}
    assert len(prompts) == 1309


def test_no_question_of_the_bench_is_trained_on():
    trained_on = {turn for prompt in training_prompts() for turn in prompt["turns"]}
    firsts = {prompt["turns"][0] for prompt in bench_prompts()}
    assert len(firsts) == 40
    assert not firsts & trained_on
