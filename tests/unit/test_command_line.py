"""--help of every stage and tool says what it does, and does nothing else."""

import ast
import os
import signal
import subprocess
import sys

import pytest
import yaml

from eagle.command_line import run_stage
from tests.conftest import ROOT

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
TOOLS = sorted(
    path.stem
    for path in (ROOT / "tools").glob("*.py")
    if path.stem != "__init__" and '__name__ == "__main__"' in path.read_text()
)


@pytest.mark.parametrize("name", STAGES)
def test_help_of_a_stage_says_what_it_reads_writes_and_obeys(name, monkeypatch, capsys):
    script = ROOT / f"scripts/{name}.py"
    tree = ast.parse(script.read_text())
    explanation = ast.get_docstring(tree)
    assert ast.unparse(tree.body[-1].body[-1]) == "run_stage(main, __doc__)"
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    with pytest.raises(SystemExit) as end:
        run_stage(lambda: pytest.fail("the stage was run"), explanation)
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert explanation in said
    words = said.replace(",", "").split()
    assert set(STAGES[name]["outs"]) <= set(words)
    assert set(STAGES[name].get("params", [])) <= set(words)
    assert {dep for dep in STAGES[name]["deps"] if dep.startswith("resources/")} <= set(words)


@pytest.mark.parametrize("argument", ["--hlep", "train", "--epochs=3"])
def test_a_stage_refuses_any_other_argument(argument, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["scripts/train.py", argument])
    with pytest.raises(SystemExit) as end:
        run_stage(lambda: pytest.fail("the stage was run"), "Stage train.")
    assert end.value.code == 2
    assert f"unrecognized arguments: {argument}" in capsys.readouterr().err


@pytest.mark.parametrize("name", TOOLS)
def test_help_of_a_tool_is_its_docstring(name, tmp_path):
    docstring = ast.get_docstring(ast.parse((ROOT / f"tools/{name}.py").read_text()))
    command = [sys.executable, "-m", f"tools.{name}", "--help"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert docstring in finished.stdout


WAITING = """
import sys, time
from pathlib import Path
from eagle.command_line import run_stage
from eagle.files import whole_folder

def main():
    with whole_folder(Path("out")) as folder:
        (folder / "half").touch()
        print("waiting", flush=True)
        time.sleep(60)

sys.argv[0] = "scripts/write_report.py"
run_stage(main, "Stage write_report.")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("ignored", [False, True])
def test_a_stage_ends_at_a_signal_with_one_line_and_leaves_nothing(tmp_path, number, ignored):
    """But not at one that is ignored, as SIGHUP is under nohup."""
    stage = subprocess.Popen(
        [sys.executable, "-c", WAITING], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL),
    )  # fmt: skip
    assert stage.stdout.readline() == "waiting\n"
    stage.send_signal(number)
    if ignored:
        with pytest.raises(subprocess.TimeoutExpired):
            stage.wait(0.2)
        number = signal.SIGHUP if number == signal.SIGTERM else signal.SIGTERM
        stage.send_signal(number)
    assert stage.communicate()[1] == f"write_report: ended by {number.name}\n"
    assert stage.returncode == 128 + number
    assert list(tmp_path.iterdir()) == []
