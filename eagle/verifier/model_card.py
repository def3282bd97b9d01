"""What a model's own card or folder says of it: its name and its licence."""

import re
from pathlib import Path
from typing import NamedTuple

import yaml

from eagle.files import entries

CARD = "README.md"
LICENCES = {
    "apache license": "apache-2.0",
    "mit license": "mit",
    "gnu general public license": "gpl-3.0",
    "llama 2 community license": "llama2",
    "llama 3 community license": "llama3",
    "llama 3.1 community license": "llama3.1",
    "llama 3.2 community license": "llama3.2",
    "llama 3.3 community license": "llama3.3",
    "gemma terms of use": "gemma",
}
"""The name on the hub of a licence whose text begins like this, white space and case aside."""
BEGINNING = 300
"""Characters of a licence's text in which its name stands."""


class ModelCard(NamedTuple):
    """What is stated of a model; None where nothing is."""

    title: str | None = None
    license: str | None = None
    """As the hub names it."""
    license_name: str | None = None
    """Its own name, where `license` is other."""


def read_model_card(folder: Path) -> ModelCard:
    """Read README.md's front matter and heading, and the text of a file LICENSE.

    What the front matter says of the licence counts before the file.
    """
    text = ""
    if (folder / CARD).is_file():
        text = (folder / CARD).read_text(encoding="utf-8", errors="replace")
    fields, body = _front_matter(text)
    heading = re.search(r"^#\s+(.+?)\s*$", body, re.MULTILINE)
    license = _word(fields.get("license"))
    return ModelCard(
        title=_word(fields.get("model_name")) or (heading and heading[1]),
        license=license or _license_of_file(folder),
        license_name=_word(fields.get("license_name")) if license == "other" else None,
    )


def _front_matter(text: str) -> tuple[dict, str]:
    """The YAML between the first two lines of three dashes, and the rest."""
    parts = re.match(r"\s*---\s*\n(.*?)\n---\s*\n?(.*)", text, re.DOTALL)
    if not parts:
        return {}, text
    try:
        fields = yaml.safe_load(parts[1])
    except yaml.YAMLError:  # a card is for people; that it is not YAML is no error of the model
        fields = None
    return (fields if isinstance(fields, dict) else {}), parts[2]


def _word(value: object) -> str | None:
    """A text on one line; a list's only one."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return " ".join(value.split()) or None if isinstance(value, str) else None


def _license_of_file(folder: Path) -> str | None:
    """The licence in a file LICENSE; other if its text is not known, None without one."""
    files = [path for path in entries(folder, "LICENSE*") if path.is_file()]
    if not files:
        return None
    start = files[0].read_text(encoding="utf-8", errors="replace")[:BEGINNING]
    start = " ".join(start.lower().split())
    return next((name for words, name in LICENCES.items() if words in start), "other")
