"""Questions to measure with: the shipped ones, the paper's four benches by name, or a file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from eagle.errors import InputError
from eagle.files import read_json_lines
from eagle.hub import fetch_dataset_file


@dataclass(frozen=True)
class HubBench:
    """A bench of the paper as its publisher keeps it on the hub."""

    source: str
    """hub:OWNER/NAME/FILE, JSON lines or parquet."""
    revision: str
    turns: Callable[[dict], list[str]]
    """What the user says, from a row of the file."""
    category: str | None = None
    """Of all its questions; None: each row has its own."""

    def question(self, row: dict, number: int) -> dict:
        """A row of the file in MT-bench's schema."""
        return {
            "question_id": row.get("question_id", number),
            "category": self.category or row["category"],
            "turns": self.turns(row),
        }


BENCHES = {
    "mt_bench": HubBench(
        "hub:HuggingFaceH4/mt_bench_prompts/raw/question.jsonl",
        "e3a795c5e9a82ee40611c416b8a7786c73198991",
        lambda row: row["prompt"],
    ),
    # the words around the code are those of the official evaluation (SafeAILab/EAGLE, eagle/data)
    "humaneval": HubBench(
        "hub:openai/openai_humaneval/openai_humaneval/test-00000-of-00001.parquet",
        "7dce6050a7d6d172f3cc5c32aa97f52fa1a2e544",
        lambda row: ["Complete the code I provided." + row["prompt"]],
        "code",
    ),
    "gsm8k": HubBench(
        "hub:openai/gsm8k/main/test-00000-of-00001.parquet",
        "740312add88f781978c0658806c59bc2815b9866",
        lambda row: [row["question"]],
        "math",
    ),
    "alpaca": HubBench(
        "hub:tatsu-lab/alpaca/data/train-00000-of-00001-a09b74b3ef9c3b56.parquet",
        "dce01c9b08f87459cf36a430d809084718273017",
        lambda row: ["\n\n".join(part for part in (row["instruction"], row["input"]) if part)],
        "instructions",
    ),
}
"""MT-bench whole; of the others the paper asks 80 questions (its own choice of them), here a run
asks `evaluate.questions`, spread over the whole set."""

SCHEMA = "JSON lines with question_id, category and a list of texts `turns`"


def bench_file(bench: str) -> Path:
    """The local path of a bench, downloaded when it is one of the paper's and not there yet.

    Args:
        bench: a name of BENCHES, or the path of a file in MT-bench's schema.

    Raises:
        InputError: no such file or name, or the hub does not give the file.
    """
    if bench in BENCHES:
        named = BENCHES[bench]
        try:
            return fetch_dataset_file(named.source, named.revision, f"evaluate.bench = {bench}")
        except InputError as error:
            raise InputError(
                f"{error}. Without the hub: set evaluate.bench to a file of these questions, "
                f"{SCHEMA}"
            ) from None
    if not Path(bench).is_file():
        raise InputError(
            f"evaluate.bench = {bench}: there is no such file, nor a bench of that name; give "
            f"one of {', '.join(BENCHES)}, or a file of {SCHEMA}"
        )
    return Path(bench)


def read_questions(bench: str) -> list[dict]:
    """All questions of a bench, in MT-bench's schema.

    Raises:
        InputError: as `bench_file`; not JSON lines, or a row without question_id, category and
            turns.
    """
    file = bench_file(bench)
    rows = _read_parquet(file) if file.suffix == ".parquet" else read_json_lines(file)
    if bench in BENCHES:
        rows = [BENCHES[bench].question(row, number) for number, row in enumerate(rows)]
    for number, row in enumerate(rows, start=1):
        turns = row.get("turns")
        complete = {"question_id", "category"} <= row.keys()
        spoken = isinstance(turns, list) and turns and all(_is_text(turn) for turn in turns)
        if not complete or not spoken:
            raise InputError(
                f"{file}, line {number}: expected question_id, category and a list of texts "
                f"`turns`, none of them empty; found {str(row)[:80]}"
            )
    return rows


def read_bench(bench: str, questions: int) -> list[dict]:
    """Questions of a bench, `questions` of them spread evenly over it.

    Raises:
        InputError: as `read_questions`.
    """
    rows = read_questions(bench)
    taken = min(questions, len(rows))
    return [rows[i * len(rows) // taken] for i in range(taken)]


def _is_text(turn: object) -> bool:
    return isinstance(turn, str) and bool(turn.strip())


def _read_parquet(file: Path) -> list[dict]:
    import pyarrow  # a third of a second, for these benches only
    from pyarrow import parquet

    try:
        return parquet.read_table(file).to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise InputError(f"{file}: not a whole parquet file: {error}; delete it") from None
