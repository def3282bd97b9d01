"""A published draft is measured with the same tool as one's own, beside it."""

import json
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file

from eagle.errors import InputError
from tests.integration.conftest import Project
from tests.integration.test_dag import changed
from tools.measure_draft import main


@pytest.fixture
def measure_draft(project: Project, monkeypatch):
    """Run the tool in this process, in the project."""
    monkeypatch.chdir(project.folder)

    def run(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["measure_draft", *arguments])
        main()

    return run


def test_a_published_draft_is_measured_beside_ones_own(project: Project, measure_draft, capsys):
    own = project.folder / "models/export/official"
    published = project.folder / "published"
    published.mkdir()
    weights = load_file(own / "model.safetensors") | {"fc.bias": torch.zeros(32)}
    torch.save(weights, published / "pytorch_model.bin")
    config = json.loads((own / "config.json").read_text())
    del config["bias"]  # as SafeAILab/EAGLE publishes them
    (published / "config.json").write_text(json.dumps(config))

    with pytest.raises(InputError, match="a pickle, allow it with --allow-pickle"):
        measure_draft("path:published")
    assert not (project.folder / "models/imported/published").exists()

    measure_draft("path:published", "--allow-pickle")
    assert "your own draft" in capsys.readouterr().out
    metrics = json.loads((project.folder / "results/imported/published/metrics.json").read_text())
    ours = json.loads((project.folder / "results/evaluate/metrics.json").read_text())
    for name in ("tau", "alpha_0", "top1_agreement", "lossless"):  # the same weights
        assert metrics[name] == ours[name]
    assert changed(project.folder) == set()


def test_a_published_draft_without_rope_is_measured_with_llamas(
    project: Project, measure_draft, capsys
):
    """The verifier's base is 500; Llama's default, which then holds, is 10,000."""
    published = project.folder / "published"
    shutil.copytree(project.folder / "models/export/official", published)
    config = json.loads((published / "config.json").read_text())
    for name in ("rope_parameters", "rope_theta", "rope_scaling"):
        del config[name]
    (published / "config.json").write_text(json.dumps(config))
    measure_draft("path:published")
    (warning,) = (line for line in capsys.readouterr().err.splitlines() if "warning" in line)
    assert "the draft's rope is" in warning
    assert "10000.0" in warning
    assert "500.0" in warning
    imported = json.loads((project.folder / "models/imported/published/config.json").read_text())
    assert imported["rope_theta"] == 10000.0
    metrics = json.loads((project.folder / "results/imported/published/metrics.json").read_text())
    assert metrics["lossless"]


def test_a_hub_draft_must_be_pinned(measure_draft):
    with pytest.raises(InputError, match="needs --revision, the 40-character commit"):
        measure_draft("hub:org/draft")
