"""Evaluation questions: a file of them, or one of the paper's four sets by its name."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from eagle.errors import InputError
from eagle.files import read_json_lines
from eagle.hub import fetch_dataset_file


@dataclass(frozen=True)
class HubQuestions:
    """A set of questions of the paper, as its publisher keeps it on the hub."""

    source: str
    """hub:OWNER/NAME/FILE, JSON lines or parquet."""
    revision: str
    turns: Callable[[dict], list[str]]
    """The user's turns, from a row of the file."""
    category: str | None = None
    """The category of all questions; None: each row has its own."""

    def question(self, row: dict, number: int) -> dict:
        """A row of the file in MT-bench's schema; `number` is its id if it has none."""
        return {
            "question_id": row.get("question_id", number),
            "category": self.category or row["category"],
            "turns": self.turns(row),
        }


HUB_QUESTIONS = {
    "mt_bench": HubQuestions(
        "hub:HuggingFaceH4/mt_bench_prompts/raw/question.jsonl",
        "e3a795c5e9a82ee40611c416b8a7786c73198991",
        lambda row: row["prompt"],
    ),
    # the instruction before the code is the official evaluation's (SafeAILab/EAGLE, eagle/data)
    "humaneval": HubQuestions(
        "hub:openai/openai_humaneval/openai_humaneval/test-00000-of-00001.parquet",
        "7dce6050a7d6d172f3cc5c32aa97f52fa1a2e544",
        lambda row: ["Complete the code I provided." + row["prompt"]],
        "code",
    ),
    "gsm8k": HubQuestions(
        "hub:openai/gsm8k/main/test-00000-of-00001.parquet",
        "740312add88f781978c0658806c59bc2815b9866",
        lambda row: [row["question"]],
        "math",
    ),
    "alpaca": HubQuestions(
        "hub:tatsu-lab/alpaca/data/train-00000-of-00001-a09b74b3ef9c3b56.parquet",
        "dce01c9b08f87459cf36a430d809084718273017",
        lambda row: ["\n\n".join(part for part in (row["instruction"], row["input"]) if part)],
        "instructions",
    ),
}
"""The paper uses the whole of MT-bench, and 80 questions that it selected from each other set. Here
a run takes `evaluate.questions` questions, spread evenly over the set."""

SCHEMA = "JSON lines with question_id, category and a list of texts `turns`"


def questions_file(source: str) -> Path:
    """The local path of a file of questions; a set from the hub is downloaded if necessary.

    Args:
        source: a name of HUB_QUESTIONS, or the path of a file in MT-bench's schema.

    Raises:
        InputError: no such file or name, or the hub does not give the file.
    """
    if source in HUB_QUESTIONS:
        named = HUB_QUESTIONS[source]
        try:
            return fetch_dataset_file(named.source, named.revision, f"the bench {source}")
        except InputError as error:
            raise InputError(
                f"{error}. Without the hub: set evaluate.bench and sharegpt.bench to a file of "
                f"these questions, {SCHEMA}"
            ) from None
    if not Path(source).is_file():
        raise InputError(
            f"evaluate.bench = {source}: there is no such file, nor a bench of that name; give "
            f"one of {', '.join(HUB_QUESTIONS)}, or a file of {SCHEMA}"
        )
    return Path(source)


def read_questions(source: str) -> list[dict]:
    """Read all questions of a file or a named set, in MT-bench's schema.

    Raises:
        InputError: as `questions_file`; or the file is not JSON lines, or a row has no
            question_id, category or turns.
    """
    file = questions_file(source)
    rows = _read_parquet(file) if file.suffix == ".parquet" else read_json_lines(file)
    if source in HUB_QUESTIONS:
        rows = [HUB_QUESTIONS[source].question(row, number) for number, row in enumerate(rows)]
    for number, row in enumerate(rows, start=1):
        turns = row.get("turns")
        has_keys = {"question_id", "category"} <= row.keys()
        has_turns = isinstance(turns, list) and turns and all(_is_text(turn) for turn in turns)
        if not has_keys or not has_turns:
            raise InputError(
                f"{file}, line {number}: expected question_id, category and a list of texts "
                f"`turns`, none of them empty; found {str(row)[:80]}"
            )
    return rows


def select_questions(source: str, count: int) -> list[dict]:
    """Read `count` questions, spread evenly over all of them; all if there are fewer.

    Raises:
        InputError: as `read_questions`.
    """
    return spread(read_questions(source), count)


def spread(rows: list[dict], count: int) -> list[dict]:
    """`count` of the rows, spread evenly over them; all if there are fewer."""
    count = min(count, len(rows))
    return [rows[i * len(rows) // count] for i in range(count)]


def _is_text(turn: object) -> bool:
    return isinstance(turn, str) and bool(turn.strip())


def _read_parquet(file: Path) -> list[dict]:
    import pyarrow  # takes a third of a second, and JSON lines do not need it
    from pyarrow import parquet

    try:
        return parquet.read_table(file).to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise InputError(f"{file}: not a whole parquet file: {error}; delete it") from None
