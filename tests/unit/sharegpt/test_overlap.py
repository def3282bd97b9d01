"""Leaks and near duplicates against their definitions, written out as sets."""

import json
import random

import numpy as np
import pytest

from eagle.errors import InputError
from eagle.sharegpt.overlap import QuestionSearch, near_duplicates, signatures, words_of
from tests.tiny import WORDS, write_json_lines


def question_search(tmp_path, *questions: list[str], leak_words: int = 5) -> QuestionSearch:
    rows = [
        {"question_id": number, "category": "c", "turns": turns}
        for number, turns in enumerate(questions)
    ]
    return QuestionSearch(write_json_lines(tmp_path / "bench.jsonl", rows), leak_words)


def test_words_are_lower_case_and_turns_are_kept_apart():
    assert words_of(["It's a  «Test», no. 1!", "Žluť\n🙂"]) == [
        b"\0", b"it", b"s", b"a", "«test»".encode(), b"no", b"1", b"\0", "žluť".encode(),
        "🙂".encode(), b"\0",
    ]  # fmt: skip


def test_a_prompt_is_found_by_any_of_its_runs_of_words(tmp_path):
    search = question_search(
        tmp_path, ["Name seven birds that cannot fly at all.", "Which one is largest?"]
    )
    where = "bench.jsonl, question 0"
    assert search.first_match(words_of(["so: BIRDS that\ncannot fly, at last", "..."])) == where
    assert search.first_match(words_of(["birds that cannot", "fly at all"])) is None
    assert search.first_match(words_of(["mybirds that cannot fly at"])) is None
    assert search.first_match(words_of(["which one is largest"])) is None


def test_a_short_question_is_found_as_a_whole_turn(tmp_path):
    search = question_search(tmp_path, ["What makes popcorn pop?"])
    assert search.first_match(words_of(["hi", "hello", "what makes popcorn pop", "heat"]))
    assert not search.first_match(words_of(["tell me what makes popcorn pop"]))


def test_random_texts_leak_exactly_where_sets_of_words_in_a_row_meet(tmp_path):
    generator = random.Random(0)
    questions = [[" ".join(generator.choices(WORDS[:6], k=9))] for _ in range(20)]
    search = question_search(tmp_path, *questions)

    def grams(text: str) -> set:
        words = text.split()
        return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}

    known = set().union(*(grams(question[0]) for question in questions))
    found = []
    for _ in range(300):
        text = " ".join(generator.choices(WORDS[:6], k=12))
        found.append(search.first_match(words_of([text])) is not None)
        assert found[-1] == bool(known & grams(text))
    assert 0 < sum(found) < 300


def test_questions_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(InputError, match="holds no .jsonl file"):
        QuestionSearch(tmp_path, 8)
    (tmp_path / "b.jsonl").write_text(json.dumps({"question_id": 1, "category": "c"}))
    with pytest.raises(InputError, match="b.jsonl, line 1: expected .*`turns`"):
        QuestionSearch(tmp_path, 8)


def similar_texts(generator: random.Random) -> list[list[bytes]]:
    """Texts, and copies of them in which some words are others."""
    texts = []
    for _ in range(25):
        words = [str(generator.randrange(10**6)) for _ in range(300)]
        for changed in (0, 2, 5, 10, 20, 40):
            copy = list(words)
            for place in generator.sample(range(300), changed):
                copy[place] = str(generator.randrange(10**6))
            texts.append(words_of([" ".join(copy)]))
    generator.shuffle(texts)
    return texts


def test_signatures_estimate_what_two_texts_share():
    texts = similar_texts(random.Random(0))
    minhashes = signatures(texts)
    assert minhashes.shape == (150, 128) and minhashes.dtype == np.uint32
    shingles = [{tuple(t[i : i + 5]) for i in range(len(t) - 4)} for t in texts]
    pairs = [(a, b) for a in range(150) for b in range(a)]
    exact = np.array([len(shingles[a] & shingles[b]) / len(shingles[a] | shingles[b])
                      for a, b in pairs])  # fmt: skip
    estimated = np.array([(minhashes[a] == minhashes[b]).mean() for a, b in pairs])
    assert np.abs(exact - estimated).max() < 0.2
    assert abs((exact - estimated)[exact > 0].mean()) < 0.01


@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.8, 0.95, 1.0])
def test_bands_find_what_comparing_every_pair_finds(similarity):
    minhashes = signatures(similar_texts(random.Random(1)))
    kept: list[int] = []
    expected = []
    for row in range(len(minhashes)):
        if any((minhashes[row] == minhashes[other]).mean() >= similarity for other in kept):
            expected.append(row)
        else:
            kept.append(row)
    found = near_duplicates(minhashes, similarity)
    assert len(set(expected) ^ set(found)) <= 0.03 * len(expected)
    assert all((minhashes[a] == minhashes[b]).mean() >= similarity for a, b in found.items())
    assert not set(found.values()) & set(found)


def test_short_and_equal_texts_have_signatures_too():
    minhashes = signatures([words_of([text]) for text in ("", "a", "a b", "a b", "a b c d e f")])
    assert near_duplicates(minhashes, 0.9) == {3: 2}
