"""Bench prompts in MT-bench's schema."""

from pathlib import Path

from eagle.errors import InputError
from eagle.files import read_json_lines


def read_questions(path: Path) -> list[dict]:
    """JSON lines of {"question_id", "category", "turns": [text, ...]}.

    Raises:
        InputError: absent, not JSON lines, or a row without question_id, category and turns.
    """
    rows = read_json_lines(path)
    for number, row in enumerate(rows, start=1):
        turns = row.get("turns")
        complete = {"question_id", "category"} <= row.keys()
        if not complete or not turns or not all(isinstance(turn, str) for turn in turns):
            raise InputError(
                f"{path}, line {number}: expected question_id, category and a list of texts "
                f"`turns`; found {str(row)[:80]}"
            )
    return rows
