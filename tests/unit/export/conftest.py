"""What tests of exported and of published drafts share."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig

from eagle.draft.draft import Draft, draft_config
from eagle.export.layouts import export
from eagle.training.initialization import initialize_random


@pytest.fixture
def draft(tiny_verifier):
    draft = Draft(draft_config(None, AutoConfig.from_pretrained(tiny_verifier)))
    initialize_random(draft, 0)
    return draft


def exported(
    draft: Draft, verifier: Path, layout: str, folder: Path
) -> tuple[dict[str, Tensor], dict]:
    """Export a draft into a new folder. Returns its weights and its config."""
    folder.mkdir()
    export(draft, verifier, layout, folder)
    config = json.loads((folder / "config.json").read_text())
    return load_file(folder / "model.safetensors"), config
