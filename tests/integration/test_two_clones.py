"""Two clean clones on one machine compute the same bytes."""

import shutil
from pathlib import Path

import pytest
import yaml

from tests.integration.conftest import Project, make_miniature

# What holds the time, the commit or the speed of the machine.
OF_THE_RUN = (
    "README.md", "provenance.json", "results/evaluate", "results/plots", "results/report.html",
    "results/report.md", "results/train",
)  # fmt: skip


def hashes(folder: Path) -> dict[str, str]:
    """The hash of each output that depends on its inputs alone, by dvc.lock."""
    stages = yaml.safe_load((folder / "dvc.lock").read_text())["stages"].values()
    outs = {out["path"]: out["md5"] for stage in stages for out in stage["outs"]}
    # the list in a layout's folder has the hashes of the card and of provenance.json
    lists = [path for path in outs if path.count("/") == 3 and path.endswith("SHA256SUMS.txt")]
    return {
        path: md5
        for path, md5 in outs.items()
        if path not in lists and not path.endswith(OF_THE_RUN)
    }


@pytest.mark.long
def test_a_clone_elsewhere_and_without_git_gives_the_same_bytes(reproduced: Path, tmp_path, run):
    clone = tmp_path / "a much longer path" / "clone"
    make_miniature(clone)
    shutil.copy(reproduced / "params.yaml", clone)  # the same verifier
    shutil.rmtree(clone / ".git")
    project = Project(clone, run)
    project.set("machine", data_processes=1)
    project("dvc", "config", "core.no_scm", "true")
    project("dvc", "repro")
    found, expected = hashes(clone), hashes(reproduced)
    assert {
        "resources/verifier", "resources/tokens", "models/draft", "models/export/SHA256SUMS.txt",
        "models/export/vllm/model.safetensors",
    } <= found.keys()  # fmt: skip
    assert found == expected
    cards = [path for path in clone.glob("models/export/*/*") if path.suffix in (".md", ".json")]
    assert len(cards) == 9  # configs and provenance among them
    assert not [path for path in cards if str(tmp_path) in path.read_text()]
