"""A model's name and licence come from its own card or folder, or are not stated."""

import json

import pytest

from eagle.verifier.download import fetch_verifier
from eagle.verifier.model_card import ModelCard, read_model_card

FRONT = (
    "---\nlicense: {}\nlicense_name: own\nbase_model: org/parent\n---\n\n# Our Model\n\n# More\n"
)


@pytest.mark.parametrize(
    ("readme", "licence_file", "expected"),
    [
        (FRONT.format("llama3.1"), "MIT License", ModelCard("Our Model", "llama3.1")),
        (FRONT.format("other"), None, ModelCard("Our Model", "other", "own")),
        (FRONT.format("[mit]"), None, ModelCard("Our Model", "mit")),
        (
            "# Only a heading",
            "\n  Apache License\n Version 2.0",
            ModelCard("Only a heading", "apache-2.0"),
        ),
        ("---\nlicense: [\n---\n# T", None, ModelCard("T")),
        (None, "LLAMA 2 COMMUNITY LICENSE AGREEMENT", ModelCard(None, "llama2")),
        (None, "Terms of our company", ModelCard(None, "other")),
        (None, None, ModelCard()),
    ],
)
def test_what_is_stated_is_read_and_nothing_is_guessed(tmp_path, readme, licence_file, expected):
    if readme is not None:
        (tmp_path / "README.md").write_text(readme)
    if licence_file is not None:
        (tmp_path / "LICENSE.txt").write_text(licence_file)
    assert read_model_card(tmp_path) == expected


def test_the_manifest_has_it_and_the_card_is_not_part_of_the_model(tiny_verifier, tmp_path):
    model, folder = tmp_path / "model", tmp_path / "v"
    model.mkdir()
    folder.mkdir()
    for path in tiny_verifier.iterdir():
        (model / path.name).write_bytes(path.read_bytes())
    (model / "README.md").write_text(FRONT.format("mit"))
    fetch_verifier(f"path:{model}", None, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["title"], manifest["license"]) == ("Our Model", "mit")
    assert "README.md" not in manifest["files"]
    assert not (folder / "README.md").exists()
