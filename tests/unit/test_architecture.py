"""docs/architecture.md has a line for every module, the stages of dvc.yaml, and no stale path."""

import ast
import re
from collections import Counter

import pytest
import yaml

from eagle.config import Params
from tests.conftest import ROOT

ARCHITECTURE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
FOLDERS = ("eagle", "scripts", "tools", "benchmarks")
# the files in which people read commands; CHANGELOG.md also names commands of the past
GUIDES = (
    "README.md",
    "CONTRIBUTING.md",
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").glob("*.md"))),
    ".pre-commit-config.yaml",
    ".github/workflows/test.yml",
)


def test_every_module_has_exactly_one_line():
    lines = re.findall(r"^- `(\S+\.py)`: \S", ARCHITECTURE, re.MULTILINE)
    modules = {
        str(path.relative_to(ROOT))
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert Counter(lines) == Counter(modules)


def test_every_package_says_what_it_takes_and_gives_and_does_nothing():
    packages = [ROOT / "eagle/__init__.py", *(ROOT / "eagle").glob("*/__init__.py")]
    for path in packages:
        (docstring,) = ast.parse(path.read_text()).body  # and no other statement
        assert re.fullmatch(r".+\n\nIn: .+\nOut: .+", docstring.value.value.strip()), path


def test_every_path_that_is_named_exists():
    named = re.findall(r"`([\w./-]+(?:/|\.(?:py|md|json|yaml|toml|cff|lock)))`", ARCHITECTURE)
    outputs = {"results/", "models/", "runs/"}
    assert [path for path in named if path not in outputs and not (ROOT / path).exists()] == []


def test_the_name_map_is_that_of_the_stages_and_the_parameters():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    rows = re.findall(r"^\| `(\w+)` \| (`eagle/.*`|–) \| (.+) \|$", ARCHITECTURE, re.MULTILINE)
    assert [stage for stage, _, _ in rows] == list(stages)
    sections = set()
    for stage, packages, section in rows:
        assert (ROOT / f"scripts/{stage}.py").is_file()
        for package in re.findall(r"`(.*?)`", packages):
            assert (ROOT / package / "__init__.py").is_file()
        sections |= set(re.findall(r"`(\w+)`", section))
    assert sections == set(Params.model_fields) - {"machine"}


@pytest.mark.parametrize("guide", GUIDES)
def test_every_make_target_that_a_guide_names_exists(guide):
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split())
    named = re.findall(r"(?:`|: |^)make ([a-z-]+)", (ROOT / guide).read_text(), re.MULTILINE)
    assert set(named) <= targets
