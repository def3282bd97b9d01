"""Words that texts have in common: bench prompts in training data, and near duplicates."""

import zlib
from pathlib import Path

import ahocorasick_rs
import numpy as np
from rensa import RMinHash

from eagle.errors import InputError
from eagle.questions import read_questions

# Words are lower-case runs of letters and digits; other ASCII characters only divide them.
_DIVIDERS = bytes(code for code in range(1, 128) if not chr(code).isalnum())
_TABLE = bytes.maketrans(_DIVIDERS, b" " * len(_DIVIDERS))
TURN = b"\0"  # stands as a word of its own around every turn
SHINGLE = 5  # words whose order counts together, as usual for near duplicates of texts
PERMUTATIONS = 128  # of a MinHash signature: a similarity is estimated to about 0.04
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that every bit of a word's hash counts
RECALL = 0.99  # of pairs right at the similarity asked for, that are compared at all


def words_of(turns: list[str]) -> list[bytes]:
    """Normalised words of a conversation's turns, with TURN before, between and after them."""
    text = " \0 ".join(["", *turns, ""])
    return text.lower().encode().translate(_TABLE).split()


class BenchPrompts:
    """Finds prompts of a bench in conversations.

    A prompt is found by any `leak_words` of its words in a row, as contamination is commonly
    defined (GPT-3, arXiv 2005.14165, appendix C). A question's first prompt that is shorter is
    found where it is a whole turn; a shorter follow-up ("Give an example.") says nothing without
    what it follows.
    """

    def __init__(self, bench: Path, leak_words: int):
        """Args: bench: a JSON-lines file in MT-bench's schema, or a folder of them.

        Raises:
            InputError: absent, empty or in another schema.
        """
        files = sorted(bench.glob("*.jsonl")) if bench.is_dir() else [bench]
        if not files:
            raise InputError(f"sharegpt.bench = {bench}: the folder holds no .jsonl file")
        found: dict[bytes, str] = {}
        for file in files:
            for question in read_questions(str(file)):
                where = f"{file.name}, question {question['question_id']}"
                for turn, prompt in enumerate(question["turns"]):
                    delimited = words_of([prompt])
                    words = delimited[1:-1]
                    grams = [
                        words[start : start + leak_words]
                        for start in range(len(words) - leak_words + 1)
                    ]
                    if words and not grams and turn == 0:
                        grams = [delimited]
                    for gram in grams:
                        found.setdefault(_searchable(gram), where)
        self.where = list(found.values())
        self.automaton = ahocorasick_rs.BytesAhoCorasick(list(found))

    def found_in(self, words: list[bytes]) -> str | None:
        """File and question of the first prompt found among a conversation's words."""
        matches = self.automaton.find_matches_as_indexes(_searchable(words))
        return self.where[matches[0][0]] if matches else None


def signatures(conversations: list[list[bytes]]) -> np.ndarray:
    """MinHash signatures of the conversations' sets of shingles: uint32 [C, PERMUTATIONS].

    Two rows are equal in about as large a share of places as the two sets have in common
    (Jaccard).
    """
    hashes = [_shingle_hashes(words) for words in conversations]
    bounds = np.cumsum([0, *map(len, hashes)], dtype=np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(
        np.concatenate(hashes), bounds, PERMUTATIONS, 0
    )
    return np.array(matrix.to_rows(), dtype=np.uint32)


def near_duplicates(signed: np.ndarray, similarity: float) -> dict[int, int]:
    """Rows that repeat an earlier row which itself is kept: {row: the earlier row}.

    Args:
        signed: uint32 [C, PERMUTATIONS]; the earlier row wins.
        similarity: least estimated Jaccard similarity of a near duplicate.
    """
    width = _band_width(similarity)
    companions: dict[int, list[np.ndarray]] = {}
    for start in range(0, PERMUTATIONS, width):
        band = np.ascontiguousarray(signed[:, start : start + width])
        keys = band.view(np.dtype((np.void, band.itemsize * width)))[:, 0]
        order = np.argsort(keys, kind="stable")
        begins = np.flatnonzero(keys[order][1:] != keys[order][:-1]) + 1
        for group in np.split(order, begins):
            if len(group) > 1:
                for row in group[1:]:
                    companions.setdefault(int(row), []).append(group)
    kept = np.ones(len(signed), dtype=bool)
    repeats: dict[int, int] = {}
    for row in sorted(companions):
        earlier = np.unique(np.concatenate(companions[row]))
        earlier = earlier[(earlier < row) & kept[earlier]]
        equal = (signed[earlier] == signed[row]).mean(axis=1)
        if len(earlier) and equal.max() >= similarity:
            kept[row] = False
            repeats[row] = int(earlier[equal.argmax()])
    return repeats


def _searchable(words: list[bytes]) -> bytes:
    return b" " + b" ".join(words) + b" "


def _shingle_hashes(words: list[bytes]) -> np.ndarray:
    """A hash for every SHINGLE words in a row (or for all words, if fewer): uint64."""
    codes = np.fromiter(map(zlib.crc32, words), np.uint64, len(words))
    codes = np.pad(codes, (0, max(0, SHINGLE - len(codes))))
    hashes = np.zeros(len(codes) - SHINGLE + 1, np.uint64)
    for place in range(SHINGLE):
        hashes = hashes * _MULTIPLIER + codes[place : place + len(hashes)]
    return hashes


def _band_width(similarity: float) -> int:
    """The most places of a signature in a band, with which RECALL still holds.

    Rows are compared when all places of one band are equal, which happens to a pair of similarity
    s with probability 1 - (1 - s^width)^bands.
    """
    widths = [width for width in (32, 16, 8, 4, 2) if 1 - (1 - similarity**width) ** (
        PERMUTATIONS // width) >= RECALL]  # fmt: skip
    return widths[0] if widths else 1
