"""dvc.yaml lists what each stage reads: its code, its files and the parameters that it uses."""

import ast
from pathlib import Path

import pytest
import yaml

from eagle.config import Params
from tests.closure import ROOT, closure

TEXT = (ROOT / "dvc.yaml").read_text()
STAGES = yaml.safe_load(TEXT)["stages"]
# values reach a stage through its params; what is shown, how an error is put and how a process ends
# change no result
NO_DEPS = ("command_line", "config", "errors", "lifetime", "tracking", "yaml_file")
IN_NO_DEPS = {Path(f"eagle/{name}.py") for name in NO_DEPS}
# what it checks is written there
EXCEPTIONS = {"check_parameters": {Path("eagle/config.py")}}


def paths(name: str, *kinds: str) -> set[Path]:
    return {Path(path) for kind in kinds for path in STAGES[name].get(kind, [])}


def lies_in(path: Path, listed: set[Path]) -> bool:
    return any(path.is_relative_to(other) for other in listed)


def test_every_stage_is_a_script_and_every_script_a_stage():
    scripts = {path.stem for path in (ROOT / "scripts").glob("*.py")} - {"__init__"}
    assert scripts == set(STAGES)
    for name, stage in STAGES.items():
        assert stage["cmd"] == f"python -m scripts.{name}"
        assert stage["desc"]
        assert set(stage["meta"]) == {"threads", "resources"}
        assert set(stage["meta"]["resources"]) == {"mem_mb", "runtime", "gpu"}
    assert len(TEXT.splitlines()) <= 180  # it can still be read


@pytest.mark.parametrize("name", STAGES)
def test_the_code_a_stage_imports_is_its_dependency(name):
    in_no_deps = IN_NO_DEPS - EXCEPTIONS.get(name, set())
    imported = closure(Path(f"scripts/{name}.py")) - in_no_deps
    listed = {path for path in paths(name, "deps") if path.parts[0] in ("eagle", "scripts")}
    assert {path for path in imported if not lies_in(path, listed)} == set()
    assert not any(lies_in(path, listed) for path in in_no_deps)
    unused = {dep for dep in listed if not any(lies_in(path, {dep}) for path in imported)}
    assert unused == set()


def test_the_closure_is_what_is_loaded_with_a_script():
    loaded = closure(Path("scripts/train.py"))  # which starts eagle/train.py
    assert {Path("eagle/train.py"), Path("eagle/training/loss.py")} <= loaded
    packages = {path.parts[1] for path in loaded}
    assert not packages & {"sharegpt", "template", "replies", "decoding", "evaluation", "report"}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_lists_the_parameters_that_its_script_reads(name):
    """A section, or single keys of it; never `machine`, which changes no result."""
    read = set()
    for node in ast.walk(ast.parse((ROOT / f"scripts/{name}.py").read_text())):
        if isinstance(node, ast.Attribute) and node.attr in Params.model_fields:
            read.add(node.attr)
    listed = {key.partition(".")[0] for key in STAGES[name].get("params", [])}
    assert read - {"machine"} <= listed
    assert "machine" not in listed
    for key in STAGES[name].get("params", []):
        section, _, field = key.partition(".")
        fields = Params.model_fields[section].annotation.model_fields
        assert not field or field in fields, key


@pytest.mark.parametrize("name", STAGES)
def test_the_files_a_stage_names_are_its_dependencies_or_outputs(name):
    """Path constants of a script: each lies in a dep or an out."""
    tree = ast.parse((ROOT / f"scripts/{name}.py").read_text())
    named = {
        Path(node.args[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") == "Path"
        and isinstance(node.args[0], ast.Constant)
    } - {Path("runs"), Path("results")}
    known = paths(name, "deps", "outs")
    for path in named:
        assert lies_in(path, known) or any(other.is_relative_to(path) for other in known), path
