"""Words that texts have in common: evaluation questions in training data, and near duplicates."""

import zlib
from pathlib import Path

import ahocorasick_rs
import numpy as np
from rensa import RMinHash

from eagle.errors import InputError
from eagle.files import check_inside, entries
from eagle.questions import read_questions

# A word is a run of letters, digits and non-ASCII characters, in lower case; any other character
# only separates words.
_SEPARATORS = bytes(code for code in range(1, 128) if not chr(code).isalnum())
_TO_SPACES = bytes.maketrans(_SEPARATORS, b" " * len(_SEPARATORS))
TURN = b"\0"  # the word that marks the start and the end of every turn
SHINGLE = 5  # words in a shingle, the usual number for near duplicates of texts
PERMUTATIONS = 128  # of a MinHash signature; the standard error of a similarity is about 0.04
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no bit of a word's hash is lost
RECALL = 0.99  # share of the pairs exactly at the least similarity that are compared at all


def words_of(turns: list[str]) -> list[bytes]:
    """The normalised words of a conversation's turns, with TURN before, between and after turns."""
    text = " \0 ".join(["", *turns, ""])
    return text.lower().encode().translate(_TO_SPACES).split()


class QuestionSearch:
    """Finds evaluation questions in conversations.

    A conversation contains a question if any `leak_words` consecutive words of the question are in
    it, the common definition of contamination (GPT-3, arXiv 2005.14165, appendix C). The first turn
    of a question may be shorter than that: then it must be a whole turn of the conversation. A
    follow-up turn that is shorter ("Give an example.") is not searched for, because alone it does
    not identify the question.
    """

    def __init__(self, source: Path, leak_words: int):
        """Read the questions and build the search automaton.

        Args:
            source: a JSON-lines file in MT-bench's schema, a folder of them, or a name from
                `eagle.questions`.

        Raises:
            InputError: `source` is absent, empty or in another schema.
        """
        files = entries(source, "*.jsonl") if source.is_dir() else [source]
        if not files:
            raise InputError(f"sharegpt.bench = {source}: the folder holds no .jsonl file")
        patterns: dict[bytes, str] = {}
        for file in files:
            if source.is_dir():
                check_inside(file, source)
            for question in read_questions(str(file)):
                where = f"{file.name}, question {question['question_id']}"
                for turn, prompt in enumerate(question["turns"]):
                    whole_turn = words_of([prompt])
                    words = whole_turn[1:-1]
                    grams = [
                        words[start : start + leak_words]
                        for start in range(len(words) - leak_words + 1)
                    ]
                    if words and not grams and turn == 0:
                        grams = [whole_turn]
                    for gram in grams:
                        patterns.setdefault(_searchable(gram), where)
        self.origins = list(patterns.values())
        self.automaton = ahocorasick_rs.BytesAhoCorasick(list(patterns))

    def first_match(self, words: list[bytes]) -> str | None:
        """File and id of the first question found among a conversation's words; None without."""
        matches = self.automaton.find_matches_as_indexes(_searchable(words))
        return self.origins[matches[0][0]] if matches else None


def signatures(conversations: list[list[bytes]]) -> np.ndarray:
    """MinHash signatures of C conversations, from their sets of shingles.

    The share of positions in which two signatures are equal estimates the Jaccard similarity of the
    two sets.

    Returns:
        uint32 [C, PERMUTATIONS].
    """
    hashes = [_shingle_hashes(words) for words in conversations]
    bounds = np.cumsum([0, *map(len, hashes)], dtype=np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(
        np.concatenate(hashes), bounds, PERMUTATIONS, 0
    )
    return np.array(matrix.to_rows(), dtype=np.uint32)


def near_duplicates(minhashes: np.ndarray, similarity: float) -> dict[int, int]:
    """Find rows that repeat an earlier row.

    Args:
        minhashes: signatures, uint32 [C, PERMUTATIONS].
        similarity: least estimated Jaccard similarity of a near duplicate.

    Returns:
        {row: the most similar earlier row}; an earlier row is never a near duplicate itself.
    """
    width = _band_width(similarity)
    # candidates: rows that agree with this row in all positions of some band
    candidates: dict[int, list[np.ndarray]] = {}
    for start in range(0, PERMUTATIONS, width):
        band = np.ascontiguousarray(minhashes[:, start : start + width])
        keys = band.view(np.dtype((np.void, band.itemsize * width)))[:, 0]
        order = np.argsort(keys, kind="stable")
        begins = np.flatnonzero(keys[order][1:] != keys[order][:-1]) + 1
        for group in np.split(order, begins):
            if len(group) > 1:
                for row in group[1:]:
                    candidates.setdefault(int(row), []).append(group)
    unique = np.ones(len(minhashes), dtype=bool)
    duplicates: dict[int, int] = {}
    for row in sorted(candidates):
        earlier = np.unique(np.concatenate(candidates[row]))
        earlier = earlier[(earlier < row) & unique[earlier]]
        similarities = (minhashes[earlier] == minhashes[row]).mean(axis=1)
        if len(earlier) and similarities.max() >= similarity:
            unique[row] = False
            duplicates[row] = int(earlier[similarities.argmax()])
    return duplicates


def _searchable(words: list[bytes]) -> bytes:
    """Words as one byte string in which only whole words match."""
    return b" " + b" ".join(words) + b" "


def _shingle_hashes(words: list[bytes]) -> np.ndarray:
    """A hash of every SHINGLE consecutive words, or of all words if there are fewer: uint64 [S]."""
    codes = np.fromiter(map(zlib.crc32, words), np.uint64, len(words))
    codes = np.pad(codes, (0, max(0, SHINGLE - len(codes))))
    hashes = np.zeros(len(codes) - SHINGLE + 1, np.uint64)
    for offset in range(SHINGLE):
        hashes = hashes * _MULTIPLIER + codes[offset : offset + len(hashes)]
    return hashes


def _band_width(similarity: float) -> int:
    """The widest band, in positions of a signature, with which RECALL is reached.

    Two rows are compared if all positions of one band are equal. For a pair of similarity s the
    probability of that is 1 - (1 - s^width)^bands.
    """
    widths = [width for width in (32, 16, 8, 4, 2) if 1 - (1 - similarity**width) ** (
        PERMUTATIONS // width) >= RECALL]  # fmt: skip
    return widths[0] if widths else 1
