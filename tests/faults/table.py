"""benchmarks/results/faults.json, and the table in docs/reliability.md that is written from it."""

import json
from collections import Counter
from pathlib import Path

from eagle.files import write_json, write_text
from tests.faults.stage import IDENTICAL, KILL, NOT_MET, ONE_LINE, RERUN, SHORT, Fault

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results/faults.json"
PAGE = ROOT / "docs/reliability.md"
BEGIN, END = "<!-- faults -->\n", "<!-- end of faults -->"
KINDS = {
    KILL: "killed (SIGKILL)",
    SHORT: "a write that stops half-way, then an error",
    "ENOSPC": "full disk",
    "EDQUOT": "quota used up",
    "EIO": "disk that fails",
    "EROFS": "read-only file system",
    "EACCES": "no permission",
    "EMFILE": "too many open files",
    "ENOMEM": "no memory for a map",
}
OUTCOMES = (IDENTICAL, RERUN, ONE_LINE)


def kind_of(fault: Fault) -> str:
    return KINDS[fault.error]


def record(stage: str, outcomes: Counter[tuple[str, str]]) -> None:
    """Write one stage's outcomes, and the table anew."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results[stage] = [
        {"fault": kind, "outcome": outcome, "count": count}
        for (kind, outcome), count in sorted(outcomes.items())
        if outcome != NOT_MET
    ]
    write_json(RESULTS, dict(sorted(results.items())))
    before, _, rest = PAGE.read_text().partition(BEGIN)
    write_text(PAGE, before + BEGIN + table(results) + END + rest.partition(END)[2])


def table(results: dict[str, list[dict]]) -> str:
    """Counts of all stages by fault and outcome."""
    counts: Counter[tuple[str, str]] = Counter()
    for row in (row for rows in results.values() for row in rows):
        counts[row["fault"], row["outcome"]] += row["count"]
    lines = [f"| fault | count | {' | '.join(OUTCOMES)} |", "|---|---|---|---|---|"]
    for kind in KINDS.values():
        found = [counts[kind, outcome] for outcome in OUTCOMES]
        if sum(found):
            lines.append(f"| {kind} | {sum(found):,} | {' | '.join(f'{n:,}' for n in found)} |")
    totals = [sum(counts[kind, outcome] for kind in KINDS.values()) for outcome in OUTCOMES]
    lines.append(f"| all | {sum(totals):,} | {' | '.join(f'{n:,}' for n in totals)} |")
    return "\n".join(lines) + "\n"
