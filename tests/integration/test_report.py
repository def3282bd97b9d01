"""The report of a verifier that the paper has, from the miniature's results under its name."""

import html
import json
import re
import zipfile

from scripts import write_report
from tests.integration.conftest import Project
from tests.pages import faults
from tests.tiny import accept


def test_the_papers_row_stands_in_both_reports(project: Project, monkeypatch):
    assert "paper" not in (project.folder / "results/report.md").read_text()
    project.set("verifier", source="hub:meta-llama/Llama-2-7b-chat-hf", revision="0" * 40)
    path = project.folder / "results/evaluate/provenance.json"
    source = json.loads(path.read_text())
    source["parameters"]["bench"] = "mt_bench"
    path.write_text(json.dumps(source))
    accept(path.parent)
    monkeypatch.chdir(project.folder)
    write_report.main()
    details = json.loads((project.folder / "results/evaluate/details.json").read_text())
    markdown = (project.folder / "results/report.md").read_text()
    assert "The paper's row for LLaMA2-Chat 7B" in markdown
    row = ("τ of a chain (here pooled, of five in float32)", "3.00", f"{details['alpha_tau']:.2f}")
    assert "| " + " | ".join(row) + " |" in markdown
    assert "2 of the 80 questions are asked" in markdown
    page = (project.folder / "results/report.html").read_text()
    assert '<td class="number">3.62</td>' in page
    assert '<a href="#paper">' in page


def test_what_differs_from_the_base_is_told_and_how_to_serve(project: Project, monkeypatch):
    """The miniature's params.yaml is committed, so it is the base."""
    project.set("train", learning_rate=0.001)
    project.set("machine", progress_seconds=3)  # which changes no result
    monkeypatch.chdir(project.folder)
    write_report.main()
    markdown = (project.folder / "results/report.md").read_text()
    table = markdown.partition("What differs from the base:")[2].partition("<details>")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert rows == ["| train.learning_rate | 0.0003 | 0.001 |"]
    page = (project.folder / "results/report.html").read_text()
    for layout in ("vllm", "sglang"):
        card = (project.folder / f"models/export/{layout}/README.md").read_text()
        command = card.partition("```bash\n")[2].partition("```")[0].strip()
        assert "resources/verifier" in command and f"models/export/{layout}" in command
        assert command in markdown and command in html.unescape(page)


def test_clearml_has_the_report_the_results_and_the_draft(project: Project, monkeypatch):
    monkeypatch.chdir(project.folder)
    monkeypatch.setenv("CLEARML_OFFLINE_MODE", "1")
    monkeypatch.setenv("HOME", str(project.folder))  # where ClearML also writes
    monkeypatch.delenv("CLEARML_CACHE_DIR", raising=False)
    write_report.main()
    (session,) = (project.folder / "runs/clearml/offline").glob("*.zip")
    with zipfile.ZipFile(session) as files:
        task = json.loads(files.read("task.json"))
        names = [name.rpartition("/")[2] for name in files.namelist()]
        lines = files.read("metrics.jsonl").splitlines()
    assert {kept["key"] for kept in task["execution"]["artifacts"]} == {"results", "draft"}
    assert "report_report.html_00000000.html" in names
    assert "plots_acceptance_00000000.svg" in names
    values = {event["variant"]: event.get("value") for line in lines for event in json.loads(line)}
    metrics = json.loads((project.folder / "results/evaluate/metrics.json").read_text())
    assert values["tau"] == metrics["tau"]


def test_the_pages_have_no_fault_in_a_browser(reproduced):
    results = reproduced / "results"
    assert faults(results / "report.html", results / "template/report.html") == []


HOSTILE = """</td></svg><script>alert('canary')</script>|`x`![a](b)**c**&amp;"""


def test_what_the_pages_quote_stays_text(project: Project, monkeypatch):
    """Categories and replies come from files of others; so may all names in provenance."""
    results = project.folder / "results"
    for name in ("evaluate/details.json", "evaluate/samples.json", "evaluate/provenance.json",
                 "train/provenance.json", "evaluate/per_prompt.csv",
                 "template/report.json"):  # fmt: skip
        path = results / name
        text = path.read_text()
        if name.endswith(".csv"):
            text = text.replace("birds", '"' + HOSTILE + '"')
        else:
            text = _with_hostile_texts(json.loads(text))
        path.unlink()
        path.write_text(text)
        accept(path.parent)
    project.set("verifier", source=f"path:{HOSTILE}")
    monkeypatch.chdir(project.folder)
    write_report.main()
    for path in [results / "report.md", results / "report.html", *results.glob("plots/*.svg")]:
        text = path.read_text()
        assert ("canary" in text) == (path.stem == "report")  # a chart shortens long names
        assert "<script" not in text
    markdown = (results / "report.md").read_text()
    assert "![a]" not in markdown and "**c**" not in markdown and "&amp;amp;" in markdown
    for row in (line for line in markdown.splitlines() if "canary" in line and line[0] == "|"):
        assert len(re.findall(r"(?<!\\)\|", row)) in (3, 4, 5, 8), row  # as their tables have


def _with_hostile_texts(content: dict | list) -> str:
    """JSON in which a name and a value of each table that the report shows is hostile."""
    if isinstance(content, list):
        for sample in content:
            sample["question"] = sample["category"] = sample["first"] = HOSTILE
            for step in sample["steps"]:
                step.update(accepted=[HOSTILE], own=HOSTILE, rejected=[HOSTILE])
    if "by_category" in content:
        content["by_category"][HOSTILE] = content["by_category"].pop("birds")
        content["decoder"]["name"] = HOSTILE
    if "hardware" in content:
        content["hardware"]["cpu"] = HOSTILE
        content["hardware"]["gpus"] = [HOSTILE]
        content["git_commit"] = HOSTILE
        content["inputs"][HOSTILE] = HOSTILE * 2
    return json.dumps(content)
