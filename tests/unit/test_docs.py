"""The README and the documentation say what the code does."""

import ast
import json
import re
from itertools import pairwise

import networkx
import yaml

from tests.conftest import ROOT
from tools import reference

README = (ROOT / "README.md").read_text(encoding="utf-8")


def mermaid(page: str) -> set[tuple[str, str]]:
    """The arrows of the diagram in a page; `a & b --> c` is two."""
    arrows = set()
    for line in re.search(r"```mermaid\n(.*?)```", page, re.DOTALL)[1].splitlines():
        names = [part.split(" & ") for part in line.strip().split(" --> ")]
        for sources, targets in pairwise(names):
            arrows |= {(source, target) for source in sources for target in targets}
    return arrows


def test_the_diagram_is_the_dag():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    writer = {
        next(iter(out)) if isinstance(out, dict) else out: name
        for name, stage in stages.items()
        for kind in ("outs", "metrics", "plots")
        for out in stage.get(kind, [])
    }
    reads = {
        (writer[out], name)
        for name, stage in stages.items()
        for dep in stage["deps"]
        for out in writer
        if dep == out or dep.startswith(out + "/")
    }
    dag = set(networkx.transitive_reduction(networkx.DiGraph(reads)).edges)
    assert mermaid(README) == dag
    assert mermaid((ROOT / "docs/index.md").read_text()) == dag


def test_the_readme_is_read_in_minutes():
    assert len(README.split()) <= 900


def test_links_of_the_readme_lead_to_files():
    links = re.findall(r"\]\((?!http)([^)#]+)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_generated_pages_are_those_of_the_code(monkeypatch):
    monkeypatch.chdir(ROOT)
    for path, page in reference.PAGES.items():
        assert path.read_text(encoding="utf-8") == page(), f"{path}: run `make schema`"


def test_the_messages_of_the_troubleshooting_page_are_those_of_the_code():
    page = (ROOT / "docs/troubleshooting.md").read_text()
    page = page[: page.index("## DVC, Snakemake and torchrun")]  # whose messages are not ours
    said = "\n".join([*texts(), (ROOT / "Makefile").read_text()])
    quoted = re.findall(r"`([^`]+)`", " ".join(re.findall(r"^\| (.*?) \|", page, re.MULTILINE)))
    parts = [
        part.strip()
        for message in quoted
        for part in re.split("…|nan|python3|params.yaml: ", message)
    ]
    assert len(parts) > 25
    assert [part for part in parts if part not in said] == []


def texts() -> list[str]:
    """All texts in the code, with `…` for what is filled in."""
    found = []
    for folder in ("eagle", "scripts", "tools"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    found.append(
                        "".join(
                            v.value if isinstance(v, ast.Constant) else "…" for v in node.values
                        )
                    )
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return found


def test_the_readmes_figures_are_those_of_the_default_run():
    run = json.loads((ROOT / "benchmarks/results/default_run.json").read_text())
    low, high = run["tau_95"]
    fast, faster = run["speedup_95"]
    row = (
        f"| {run['tau']:.2f} ({low:.2f}–{high:.2f}) "
        f"| {run['speedup']:.2f} ({fast:.2f}–{faster:.2f}) "
        f"| {'yes' if run['lossless'] else 'no'} | {run['minutes']} |"
    )
    assert row in README
    assert f"{run['hardware']['cpu']}), {run['date'][:10]}" in README
