"""The report's tables: every cell as text, the same in both reports."""

import json
import re
from typing import NamedTuple

import pandas as pd

from eagle.base_params import Values
from eagle.rendering import words
from eagle.report.paper import PaperComparison


class Table(NamedTuple):
    caption: str
    columns: list[str]
    rows: list[list[str]]
    """The first cell of a row names it."""

    def is_of_numbers(self, column: int) -> bool:
        """Whether the column is to be read downwards, figure under figure."""
        return all(re.match(r"[-+−]?\d|–|no |$", row[column]) for row in self.rows)


def bounds(interval: list[float] | None) -> str:
    """An interval in words."""
    return "no interval" if interval is None else "{:.2f}–{:.2f}".format(*interval)


def changes_table(base: Values, params: Values) -> Table:
    """The parameters that differ from the base."""
    return Table(
        "What differs from the base",
        ["parameter", "base", "here"],
        [
            [key, as_yaml(base[key]) if key in base else "–", as_yaml(value)]
            for key, value in params.items()
            if key not in base or base[key] != value
        ],
    )


def parameters_table(params: Values, training: dict, evaluation: dict) -> Table:
    """All parameters, and what became of those that are `auto`.

    Args:
        training, evaluation: the provenance of these stages.
    """
    found = {f"train.{key}": value for key, value in training["parameters"].items()}
    found |= {f"evaluate.{key}": value for key, value in evaluation["parameters"].items()}
    return Table(
        "All parameters",
        ["parameter", "value", "became"],
        [
            [key, as_yaml(value), as_yaml(found.get(key, value)) if value == "auto" else ""]
            for key, value in params.items()
        ],
    )


def as_yaml(value: object) -> str:
    """A parameter's value on one line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def acceptance_table(details: dict) -> Table:
    """Of the chain in float32 by position, then of the measured decoder by depth."""
    rates = [(f"α{n}, chain of five", rate) for n, rate in enumerate(details["alpha"])]
    rates += [
        (f"token {n} deep, decoder measured", rate)
        for n, rate in enumerate(details["acceptance_by_depth"], start=1)
    ]
    return Table(
        "Acceptance by position",
        ["position", "rate", "95%", "accepted", "of"],
        [
            [name, f"{rate['rate']:.3f}", bounds(rate["wilson_95"]), f"{rate['accepted']:,}",
             f"{rate['of']:,}"]
            for name, rate in rates
            if rate["of"]
        ],
    )  # fmt: skip


def groups_table(details: dict) -> Table:
    return Table(
        "By category and by turn",
        ["category or turn", "prompts", "steps", "τ", "95%", "speed-up", "95%"],
        [
            [words(name), str(group["prompts"]), f"{group['steps']:,}", f"{group['tau']:.2f}",
             bounds(group["tau_95"]), f"{group['speedup']:.2f}", bounds(group["speedup_95"])]
            for table in ("by_category", "by_turn")
            for name, group in details[table].items()
        ],
    )  # fmt: skip


def forecasts_table(details: dict) -> Table:
    return Table(
        "Forecast of every decoder, the chosen one first",
        ["forecast", "τ", "breaks even at τ", "speed-up"],
        [
            [row["decoder"], f"{row['tau']:.2f}", f"{row['break_even_tau']:.2f}",
             f"{row['speedup_without_prefill']:.2f}"]
            for row in details["forecasts"]
        ],
    )  # fmt: skip


def prompts_table(per_prompt: pd.DataFrame) -> Table:
    return Table(
        "Every prompt",
        ["question", "category", "turn", "new tokens", "τ", "vanilla tokens/s", "tokens/s"],
        [
            [str(row["question_id"]), words(row["category"]), str(row["turn"]),
             str(row["new_tokens"]), "–" if pd.isna(row["tau"]) else f"{row['tau']:.2f}",
             f"{row['vanilla_tokens_per_second']:.1f}", f"{row['tokens_per_second']:.1f}"]
            for row in per_prompt.to_dict("records")
        ],
    )  # fmt: skip


def definitions_table(details: dict) -> Table:
    return Table(
        "Other definitions of τ in circulation, on the same generations",
        ["definition", "τ"],
        [[words(name), f"{value:.3f}"] for name, value in details["other_tau"].items()],
    )


def paper_table(paper: PaperComparison) -> Table:
    def shown(value: float | None) -> str:
        return "–" if value is None else f"{value:.2f}"

    return Table(
        f"The paper's row for {paper.model}, on this bench and at this temperature",
        ["measure", "paper", "measured"],
        [[row["measure"], shown(row["paper"]), shown(row["measured"])] for row in paper.rows],
    )


def training_table(
    metrics: dict, history: pd.DataFrame, validations: pd.DataFrame, source: dict
) -> Table:
    """How long training took, on what, and what came of it.

    Args:
        metrics, source: results/train/metrics.json and provenance.json.
    """
    tokens = int(history["masked_tokens"].sum())
    return Table(
        "What training gave and took",
        ["measure", "value", "what it is"],
        [
            ["validation loss", f"{metrics['validation_loss']:.3f}",
             "soft cross-entropy a position, in nats; the least of "
             f"{len(validations)} validations"],
            ["validation top-1", f"{metrics['validation_top1']:.3f}",
             "positions at which draft and verifier find the same token most likely"],
            ["updates", f"{len(history):,}", f"{tokens:,} tokens of replies, passes counted"],
            ["rate", f"{metrics['train_tokens_per_second']:,.0f} tokens/s",
             "tokens of replies over wall time, the verifier's features included"],
            ["memory", f"{metrics['peak_memory_mb']:,} MB", "the peak of one process"],
            ["wall time", _minutes(source["wall_seconds"]), "of the whole stage"],
        ],
    )  # fmt: skip


def rows_table(statistics: dict) -> Table:
    """What became of the rows of the data: kept, or rejected and why.

    Args:
        statistics: resources/sharegpt/statistics.json.
    """
    read, splits = statistics["read"], statistics["conversations"]
    counts = [("read", read)]
    counts += [(f"rejected: {words(why)}", count) for why, count in statistics["rejected"].items()]
    counts += [
        ("left out by n, frac or a weight", statistics["not_selected"]),
        *((f"kept for {split}", count) for split, count in splits.items()),
    ]
    return Table(
        "Rows of the data, kept and rejected",
        ["rows", "number", "share"],
        [
            [name, f"{count:,}", f"{count / read:.1%}"]
            for name, count in counts
            if count or name.startswith("kept")
        ],
    )


def changes_of_rows_table(statistics: dict) -> Table:
    """What made conversations regular, and the fields that were not read; mostly neither."""
    rows = [[words(name), f"{count:,}"] for name, count in statistics["changes"].items()]
    rows += [
        [f"field not read: {name}", f"{count:,}"]
        for name, count in statistics["fields_not_read"].items()
    ]
    return Table("Changes that made rows regular", ["change", "rows"], rows)


def tokens_table(tokens: dict) -> Table:
    """Args: tokens: resources/tokens/manifest.json."""
    return Table(
        "Tokens",
        ["count", "train", "validation"],
        [
            [words(name), f"{count:,}", f"{tokens['validation'][name]:,}"]
            for name, count in tokens["train"].items()
        ],
    )


def provenance_table(training: dict, evaluation: dict) -> Table:
    """When, where and with what; of the stages `train` and `evaluate`."""
    sources = (training, evaluation)
    rows = [
        ["date (UTC)", *(date_of(source) for source in sources)],
        ["wall time", *(_minutes(source["wall_seconds"]) for source in sources)],
        ["CPU", *(f"{s['hardware']['cpu']}, {s['hardware']['cores']} cores" for s in sources)],
        ["GPU", *(", ".join(source["hardware"]["gpus"]) or "none" for source in sources)],
        ["commit", *(commit_of(source) for source in sources)],
    ]
    rows += [
        [name, version, evaluation["packages"][name]]
        for name, version in training["packages"].items()
    ]
    return Table("When, where and with what", ["", "training", "evaluation"], rows)


def date_of(source: dict) -> str:
    """The day and minute of a provenance."""
    return source["date"].replace("T", " ")[:16]


def commit_of(source: dict) -> str:
    """The commit of a provenance, and whether the checkout differed from it."""
    return (source["git_commit"] or "none")[:12] + (" with changes" if source["git_dirty"] else "")


def inputs_table(training: dict, evaluation: dict) -> Table:
    return Table(
        "SHA-256 of what was read",
        ["input", "SHA-256"],
        [
            [f"{stage}: {words(name)}", digest]
            for stage, source in (("training", training), ("evaluation", evaluation))
            for name, digest in source["inputs"].items()
        ],
    )


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} minutes"
