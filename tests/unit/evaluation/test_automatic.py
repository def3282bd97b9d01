"""What `auto` is, on a CPU and on a GPU."""

import pytest

from eagle.draft.automatic import ON_A_CPU, automatic_size
from eagle.evaluation.automatic import named_choices, resolved
from eagle.questions import select_questions
from tests.conftest import ROOT
from tests.tiny import settings

CPU, GPU = "cpu", "cuda"
BENCH = str(ROOT / "resources/bench/default.jsonl")


def test_a_cpu_answers_twenty_prompts_of_the_shipped_bench():
    stated = settings("evaluate", bench=BENCH)
    found = resolved(stated, CPU)
    asked = select_questions(BENCH, found.questions)
    assert sum(len(question["turns"]) for question in asked) == 20
    assert (found.maximum_new_tokens, found.draft_vocabulary) == (64, ON_A_CPU)
    line = "evaluate: auto on a CPU: questions 10, maximum_new_tokens 64, draft_vocabulary 8,192"
    assert named_choices(stated, found, CPU) == line


def test_a_gpu_answers_all_and_drafts_from_all_tokens():
    stated = settings("evaluate", bench=BENCH)
    found = resolved(stated, GPU)
    assert (found.questions, found.maximum_new_tokens, found.draft_vocabulary) == (40, 256, None)
    assert "draft_vocabulary all" in named_choices(stated, found, GPU)


def test_what_is_stated_stays():
    values = {"bench": BENCH, "questions": 3, "maximum_new_tokens": 9, "draft_vocabulary": None}
    stated = settings("evaluate", **values)
    assert resolved(stated, GPU) == resolved(stated, CPU) == stated
    assert named_choices(stated, stated, GPU) == ""


@pytest.mark.parametrize(
    ("asked", "device", "size"),
    [("auto", CPU, ON_A_CPU), ("auto", GPU, None), (100, GPU, 100), (None, CPU, None)],
)
def test_a_vocabulary_is_whole_on_a_gpu(asked, device, size):
    assert automatic_size(asked, device) == size
