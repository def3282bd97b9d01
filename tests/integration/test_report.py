"""The report of a verifier that the paper has, from the miniature's results under its name."""

import json

from scripts import write_report
from tests.integration.conftest import Project


def test_the_papers_row_stands_in_both_reports(project: Project, monkeypatch):
    assert "paper" not in (project.folder / "results/report.md").read_text()
    project.set("verifier", source="hub:meta-llama/Llama-2-7b-chat-hf", revision="0" * 40)
    path = project.folder / "results/evaluate/provenance.json"
    source = json.loads(path.read_text())
    source["parameters"]["bench"] = "mt_bench"
    path.write_text(json.dumps(source))
    monkeypatch.chdir(project.folder)
    write_report.main()
    details = json.loads((project.folder / "results/evaluate/details.json").read_text())
    markdown = (project.folder / "results/report.md").read_text()
    assert "The paper's row for LLaMA2-Chat 7B" in markdown
    chain = (
        f"| τ of a chain (here pooled, of five in float32) | 3.00 | {details['alpha_tau']:.2f} |"
    )
    assert chain in markdown
    assert "2 of the 80 questions are asked" in markdown
    page = (project.folder / "results/report.html").read_text()
    assert '<td class="number">3.62</td>' in page
