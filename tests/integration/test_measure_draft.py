"""A published draft is measured with the same tool as one's own, beside it."""

import json

import torch
from safetensors.torch import load_file

from tests.integration.conftest import Project, executed
from tests.integration.test_bad_input import only_message


def test_a_published_draft_is_measured_beside_ones_own(project: Project):
    own = project.folder / "models/export/official"
    published = project.folder / "published"
    published.mkdir()
    weights = load_file(own / "model.safetensors") | {"fc.bias": torch.zeros(32)}
    torch.save(weights, published / "pytorch_model.bin")
    config = json.loads((own / "config.json").read_text())
    del config["bias"]  # as SafeAILab/EAGLE publishes them
    (published / "config.json").write_text(json.dumps(config))

    command = ("python", "-m", "tools.measure_draft", "path:published")
    refused = project(*command, code=1)
    assert "a pickle, allow it with --allow-pickle" in only_message(refused)
    assert not (project.folder / "models/imported/published").exists()

    output = project(*command, "--allow-pickle")
    assert "your own draft" in output
    metrics = json.loads((project.folder / "results/imported/published/metrics.json").read_text())
    ours = json.loads((project.folder / "results/evaluate/metrics.json").read_text())
    for name in ("tau", "alpha_0", "top1_agreement", "lossless"):  # the same weights
        assert metrics[name] == ours[name]
    assert executed(project("dvc", "repro")) == []


def test_a_hub_draft_must_be_pinned(project: Project):
    output = project("python", "-m", "tools.measure_draft", "hub:org/draft", code=1)
    assert "needs --revision, the 40-character commit" in only_message(output)
