"""tools/serve_check.py sees a draft that the engine does not run as we do."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from eagle.config import load_params
from tools.serve_check import (
    EXPORT,
    acceptance_rows,
    engine_answers,
    engine_of,
    first_turns,
    our_answers,
)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_embedding_and_feature_exchanged_in_the_engines_copy_are_seen(engine_python, tmp_path):
    engine = engine_of(Path(engine_python))
    wrong = tmp_path / engine
    shutil.copytree(EXPORT / engine, wrong)
    weights = load_file(wrong / "model.safetensors")
    embedding, feature = weights["fc.weight"].chunk(2, dim=1)
    weights["fc.weight"] = torch.cat([feature, embedding], dim=1)
    save_file(weights, wrong / "model.safetensors", metadata={"format": "pt"})
    prompts = first_turns(load_params().evaluate)[:4]
    rows = acceptance_rows(
        "float32",
        our_answers(EXPORT / "official", prompts, "float32"),
        engine_answers(Path(engine_python), engine, wrong, prompts, "float32")["answers"],
    )
    assert not rows[0]["inside"]
    assert rows[0]["engine"] < rows[0]["ours"]
