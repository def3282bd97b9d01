"""The params.yaml that changes are told against: the base, which is in git's history."""

import subprocess
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError

from eagle.errors import InputError

PARAMS = Path("params.yaml")
MARK = "# Recipe: "
"""Begins the line at the top of a params.yaml into which tools/use_recipe.py put a recipe."""
Values = dict[str, Any]
"""Of params.yaml, by section.key."""


def base_text() -> str:
    """The newest params.yaml in git's history without a recipe's line.

    Raises:
        InputError: there is no such version, or no git.
    """
    for commit in _git("log", "--format=%H", "--", PARAMS.name).split():
        text = _git("show", f"{commit}:./{PARAMS.name}")
        if not text.startswith(MARK):
            return text
    raise InputError(
        f"{PARAMS}: git's history has no version of it without a recipe, which is the base; commit "
        "one, or get the whole history (git fetch --unshallow)"
    )


def values_of(text: str) -> Values:
    """Raises: InputError: the text is not YAML."""
    try:
        # keeps how a number is written: PyYAML takes 3e-05 for a text
        sections = round_trip().load(text)
    except YAMLError as error:
        raise InputError(f"not valid YAML: {' '.join(str(error).split())[:200]}") from None
    return {
        f"{section}.{key}": value
        for section, values in sections.items()
        for key, value in values.items()
    }


def round_trip() -> YAML:
    """YAML that is written as it was read."""
    yaml = YAML()
    yaml.width = 200
    null = "tag:yaml.org,2002:null"
    yaml.representer.add_representer(type(None), lambda out, _: out.represent_scalar(null, "null"))
    return yaml


def _git(*arguments: str) -> str:
    try:
        run = subprocess.run(["git", *arguments], capture_output=True, text=True)
    except OSError as error:
        raise InputError(f"git cannot be run ({error.strerror}), and the base is in it") from None
    if run.returncode:
        raise InputError(f"git {' '.join(arguments)}: {run.stderr.strip()}; run in the project")
    return run.stdout
