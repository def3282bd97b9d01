"""The command lines of stages and tools: what --help says, and which arguments are taken."""

import argparse
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import yaml

from eagle.errors import one_clear_message
from eagle.lifetime import end_in_one_line, end_with_dvc

DVC = Path(__file__).parents[1] / "dvc.yaml"


def run_stage(main: Callable[[], None], explanation: str) -> None:
    """Run the script of a stage, which takes no argument but --help.

    Wrong input, errors of the system and signals end in one line. It ends with the DVC that started
    it.

    Args:
        explanation: the script's docstring.
    """
    name = Path(sys.argv[0]).stem
    parser(f"scripts.{name}", explanation, stage=name).parse_args()
    end_in_one_line(name)
    end_with_dvc()
    with one_clear_message():
        main()


def parser(module: str, explanation: str, stage: str | None = None) -> argparse.ArgumentParser:
    """A parser without arguments, which prints the whole explanation at --help.

    Args:
        module: as in `python -m MODULE`.
        stage: its entry in dvc.yaml is shown as well: what it reads, writes and obeys.
    """
    return argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=explanation,
        epilog=None if stage is None else _in_dvc_yaml(stage),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _in_dvc_yaml(name: str) -> str:
    stage = yaml.safe_load(DVC.read_text(encoding="utf-8"))["stages"][name]
    rows = {
        "reads": [dep for dep in stage["deps"] if not dep.startswith(("eagle/", "scripts/"))],
        "obeys": stage.get("params", ["none of it alone"]),
        "writes": stage["outs"],
    }
    lines = [
        textwrap.fill(
            f"{row:8}{', '.join(listed)}", 100, subsequent_indent=" " * 8, break_on_hyphens=False
        )
        for row, listed in rows.items()
    ]
    return "\n".join(
        [
            "in dvc.yaml, with the sections and keys of params.yaml that it obeys:",
            *lines,
            "The section `machine` also says how this machine does the work; it changes no result.",
            "",
            f"`dvc repro {name}` runs the stages that it needs, and it, where something changed.",
        ]
    )
