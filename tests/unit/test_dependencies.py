"""dvc.yaml lists what each stage reads: its code, and every key of the sections it uses."""

import ast
from pathlib import Path

import pytest
import yaml

from eagle.config import Params
from tests.closure import ROOT, closure

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
# values reach a stage through its params, and what is shown changes no result
IN_NO_DEPS = {Path("eagle/config.py"), Path("eagle/tracking.py"), Path("eagle/__init__.py")}


def test_every_stage_is_a_script_and_every_script_a_stage():
    scripts = {path.stem for path in (ROOT / "scripts").glob("*.py")} - {"__init__"}
    assert scripts == set(STAGES)
    for name, stage in STAGES.items():
        assert stage["cmd"] == f"python -m scripts.{name}"
        assert stage["desc"]
        assert set(stage["meta"]) == {"threads", "resources"}
        assert set(stage["meta"]["resources"]) == {"mem_mb", "runtime", "gpu"}


@pytest.mark.parametrize("name", STAGES)
def test_the_code_a_stage_imports_is_its_dependency(name):
    imported = closure(Path(f"scripts/{name}.py")) - IN_NO_DEPS
    listed = {Path(dep) for dep in STAGES[name]["deps"] if dep.endswith(".py")}
    assert listed == imported


def test_the_closure_sees_indirect_imports():
    indirect = {Path("eagle/sharegpt/conversations.py"), Path("eagle/errors.py")}
    assert indirect <= closure(Path("scripts/train.py"))
    assert Path("eagle/report/report.py") not in closure(Path("scripts/train.py"))


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_lists_every_key_of_the_sections_its_code_reads(name):
    tree = ast.parse((ROOT / f"scripts/{name}.py").read_text())
    read = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in Params.model_fields
    }
    listed = set(STAGES[name]["params"])
    for section in read - {"machine", "verifier", "template"} | {"sharegpt"} & read:
        keys = {f"{section}.{key}" for key in Params.model_fields[section].annotation.model_fields}
        assert keys <= listed, section
    assert not any(key.startswith("machine.") for key in listed)


@pytest.mark.parametrize("name", STAGES)
def test_the_files_a_stage_names_are_its_dependencies_or_outputs(name):
    """Path constants of a script: each lies in a dep or an out."""
    tree = ast.parse((ROOT / f"scripts/{name}.py").read_text())
    paths = {
        Path(node.args[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") == "Path"
        and isinstance(node.args[0], ast.Constant)
    } - {Path("runs"), Path("results")}
    known = [Path(path) for path in STAGES[name]["deps"] + STAGES[name]["outs"]]
    for path in paths:
        inside = any(path.is_relative_to(other) or other.is_relative_to(path) for other in known)
        assert inside, path
