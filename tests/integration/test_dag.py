"""DVC and Snakemake on one DAG: what reruns, what does not, what is restored."""

import csv
import json
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import networkx
import pytest
import yaml
from dvc.repo import Repo

from tests.integration.conftest import CHECK, Project, executed
from tests.pages import drawn_without_network
from tests.unit.test_dependencies import IN_NO_DEPS
from tools.sweep import SHOW, name_of

STAGES = [
    "download_model", "prepare_sharegpt", "regenerate_replies", "validate_template",
    "tokenize_dataset", "train", "export_checkpoint", "evaluate", "write_report",
]  # fmt: skip
METRICS = {
    "results/train/metrics.json": {
        "validation_loss", "validation_top1", "train_tokens_per_second", "peak_memory_mb",
    },
    "results/evaluate/metrics.json": {
        "tau", "alpha_0", "alpha_1", "alpha_2", "alpha_3", "alpha_4", "top1_agreement",
        "speedup", "tokens_per_second", "lossless",
    },
}  # fmt: skip


def test_a_repro_leaves_every_result_and_a_second_does_nothing(project: Project):
    for path, keys in METRICS.items():
        assert set(json.loads((project.folder / path).read_text())) == keys
    assert json.loads((project.folder / "results/evaluate/metrics.json").read_text())["lossless"]
    report = (project.folder / "results/report.md").read_text()
    assert "acceptance length τ" in report
    page = (project.folder / "results/report.html").read_text()
    assert page.count("<svg") == 7  # no forecast, since the tree is stated
    assert "://" not in page.replace("http://www.w3.org", "")  # readable without a network
    assert len(page) < 3e6
    for figure in re.findall(r'<dd class="value">([\w.]+)', page):
        assert f"| **{figure}** |" in report
    for name in ("best", "last"):
        assert (project.folder / "models/draft" / name / "model.safetensors").is_file()
    source = json.loads((project.folder / "results/train/provenance.json").read_text())
    assert source["git_commit"]
    assert str(project.folder.parent) not in json.dumps(source)
    output = project("dvc", "repro")
    assert executed(output) == []
    assert "up to date" in output


def test_what_changes_no_result_reruns_nothing(project: Project):
    project.set("machine", progress_seconds=1, save_updates=3, save_minutes=0, processes=2)
    project.edit("eagle/config.py", '"""Passes over the training', '"""Rounds over the training')
    project.edit("eagle/config.py", "epochs=4", "epochs=5")
    (project.folder / "README.md").write_text("changed")
    assert changed(project.folder) == set()
    project.set("verifier", license="mit")  # stands in the model cards only
    assert executed(project("dvc", "repro")) == ["write_report"]


@pytest.mark.long
def test_a_temperature_is_measured_with_sampled_chains(project: Project):
    project.set("evaluate", temperature=1.0, top_k=20)
    assert executed(project("dvc", "repro")) == ["evaluate", "write_report"]
    metrics = json.loads((project.folder / "results/evaluate/metrics.json").read_text())
    assert metrics["lossless"]
    assert metrics["tau"] >= 1
    assert "at temperature 1" in (project.folder / "results/report.md").read_text()


@pytest.mark.parametrize(
    ("patterns", "stages"),
    [
        (["eagle/report/*.py", "resources/pages/*report*"], {"write_report"}),
        (["eagle/export/*.py"], {"export_checkpoint"}),
        (["eagle/training/*.py"], {"train", "evaluate"}),
        (["eagle/decoding/*.py", "eagle/evaluation/*.py"], {"evaluate"}),
        (
            ["eagle/sharegpt/*.py"],
            {"prepare_sharegpt", "regenerate_replies", "validate_template", "tokenize_dataset"},
        ),
        (["eagle/replies/*.py"], {"regenerate_replies"}),
        (
            [
                "eagle/config.py",
                "eagle/errors.py",
                "eagle/lifetime.py",
                "eagle/tracking.py",
                "eagle/__init__.py",
                "README.md",
            ],
            set(),
        ),
    ],
)
def test_changed_code_reruns_the_stages_that_run_it(project: Project, patterns, stages):
    """And behind them only those whose inputs come out differently."""
    for pattern in patterns:
        for path in project.folder.glob(pattern):
            change(path)
    compiled = project.folder / "eagle/report/__pycache__"
    compiled.mkdir(exist_ok=True)
    (compiled / "story.pyc").write_bytes(b"compiled")
    assert changed(project.folder) == stages


def change(path: Path) -> None:
    path.write_text(path.read_text() + "\n")


def changed(folder: Path) -> set[str]:
    """Stages whose code, parameters or inputs dvc.lock does not record, without CHECK."""
    with Repo(str(folder)) as repo:
        return {address.rpartition(":")[2] for address in repo.status()} - {CHECK}


def planned_by_dvc(folder: Path) -> set[str]:
    """The changed stages and all that come after them."""
    with Repo(str(folder)) as repo:
        graph = repo.index.graph  # from a stage to those it depends on
        after = {
            later.name
            for stage in graph
            if stage.name in changed(folder)
            for later in networkx.ancestors(graph, stage)
        }
    return changed(folder) | after


def planned_by_snakemake(output: str) -> set[str]:
    """The rules in Snakemake's table of jobs."""
    words = [line.split() for line in output.splitlines()]
    return {line[0] for line in words if len(line) == 2 and line[1].isdigit()} & set(STAGES)


def test_dvc_and_snakemake_plan_and_run_the_same(project: Project):
    loss = project.folder / "eagle/training/loss.py"
    before = loss.read_text()
    change(loss)
    plan = planned_by_dvc(project.folder)
    assert plan == {"train", "export_checkpoint", "evaluate", "write_report"}
    assert planned_by_snakemake(project("snakemake", "-n")) == plan
    loss.write_text(before)  # newer, but the same
    change(project.folder / "eagle/evaluation/metrics.py")
    plan = planned_by_dvc(project.folder)
    output = project("snakemake", "--cores", "4")
    assert planned_by_snakemake(output) == plan == set(executed(output))
    assert plan == {"evaluate", "write_report"}
    assert changed(project.folder) == set()
    assert "Nothing to be done" in project("snakemake", "--cores", "4")
    change(project.folder / "eagle/evaluation/metrics.py")  # after Snakemake ran that stage
    assert planned_by_snakemake(project("snakemake", "-n")) == plan
    project("snakemake", "--touch", "--forceall", "--cores", "4")  # what DVC made without it
    told = project("snakemake", "--report", "report.html")
    assert not re.search("warning|error|missing", told, re.IGNORECASE)
    page = (project.folder / "report.html").read_text()
    for result in ("report.html", "report.md", "plots/loss.svg", "template/report.html"):
        assert f'"results/{result}": {{"name"' in page
    assert page.count('"caption": "<p>') == page.count('"mime_type": ') >= 10


def test_a_stage_imports_nothing_that_is_not_its_dependency(reproduced: Path):
    """What the processes of each stage loaded, those that torchrun started included."""
    output = (reproduced.parent / "repro.log").read_text()
    lines = [line for line in output.splitlines() if line.startswith("import time:")]
    modules = [line.rpartition("|")[2].strip() for line in lines]
    # every stage begins as `python -m scripts.NAME`, which imports the package first
    starts = [i for i, module in enumerate(modules) if module == "scripts"] + [len(modules)]
    described = yaml.safe_load((reproduced / "dvc.yaml").read_text())["stages"]
    names = [CHECK, *executed(output)]
    for name, (start, end) in zip(names, pairwise(starts), strict=True):
        own = {module for module in modules[start:end] if module.startswith("eagle.")}
        files = {Path(*module.split(".")).with_suffix(".py") for module in own}
        files = {path for path in files if (reproduced / path).is_file()}  # not packages
        deps = described[name]["deps"]
        stray = {path for path in files if not any(path.is_relative_to(dep) for dep in deps)}
        assert stray <= IN_NO_DEPS, name
        if name == "train":
            assert Path("eagle/training/loss.py") in files  # the workers' imports were seen


def test_snakemake_alone_runs_the_chain_up_to_its_target(project: Project):
    (project.folder / "results/parameters.txt").unlink()  # as in a checkout that was never run
    project.set("sharegpt", n=20, frac=None)
    for name in ("resources/sharegpt", "resources/tokens"):  # as after SIGKILL
        shutil.copytree(project.folder / name, project.folder / ".snakemake/backups" / name)
    chain = ["prepare_sharegpt", "regenerate_replies", "validate_template", "tokenize_dataset"]
    output = project("snakemake", "--cores", "4", "tokenize_dataset")
    assert set(executed(output)) == set(chain)
    assert changed(project.folder) == {"train", "evaluate", "write_report"}
    assert "Nothing to be done" in project("snakemake", "--cores", "4", "tokenize_dataset")
    template = "- results/template/chat_template.jinja\n    params: [tokens]"
    project.edit("dvc.yaml", template, f"- resources/sharegpt\n      {template}")
    plan = planned_by_snakemake(project("snakemake", "-n", "tokenize_dataset"))
    assert plan == {"tokenize_dataset"}


def test_deleted_outputs_are_restored_not_computed(project: Project):
    metrics = (project.folder / "results/evaluate/metrics.json").read_text()
    for tool in (["dvc", "repro"], ["snakemake", "--cores", "4"]):
        for name in ("models", "results", "resources/tokens"):
            shutil.rmtree(project.folder / name)
        assert executed(project(*tool)) == []
        assert (project.folder / "results/evaluate/metrics.json").read_text() == metrics
        assert (project.folder / "models/draft/best/model.safetensors").is_file()


def test_snakemake_waits_for_a_dvc_at_work_and_destroys_nothing(project: Project):
    slow = "import time\n\ntime.sleep(8)\n"
    project.edit("scripts/regenerate_replies.py", "import time\n", slow)
    change(project.folder / "eagle/evaluation/metrics.py")
    with ThreadPoolExecutor() as pool:
        first = pool.submit(project, "dvc", "repro", code=None)
        lock = project.folder / ".dvc/tmp/rwlock"
        while not lock.is_file() or "resources/replies" not in lock.read_text():
            time.sleep(0.1)
        output = project("snakemake", "--cores", "4")
        # DVC gives up, where Snakemake's has come to a stage before it
        printed = first.result()
    assert "is busy, it is being blocked by" in output
    ran = executed(output) + executed(printed)
    assert sorted(ran) == ["evaluate", "regenerate_replies", "write_report"]
    assert changed(project.folder) == set()
    assert "Nothing to be done" in project("snakemake", "--cores", "4")


def test_snakemake_shows_the_dag(project: Project):
    graph = project("snakemake", "--rulegraph")
    assert set(re.findall(r'label = "(\w+)"', graph)) == {*STAGES, CHECK, "all"}
    project("snakemake", "--lint")


@pytest.mark.parametrize("command", [["dvc", "repro"], ["dvc", "exp", "run"], ["snakemake", "-c2"]])
def test_a_wrong_parameter_of_a_late_stage_costs_no_output(project: Project, command):
    """The stages before it have work to do as well."""
    folders = [project.folder / name for name in ("resources", "models", "results")]
    files = {path for folder in folders for path in folder.rglob("*") if path.is_file()}
    project.set("sharegpt", shuffle_seed=1)
    project.set("evaluate", draft_length="many")
    project.set("template", file="absent.jinja")
    output = project(*command, code=1)
    assert executed(output) == []
    assert "Traceback" not in output
    (first, *_more) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert first.startswith("error: params.yaml: evaluate.draft_length")
    assert "template.file = absent.jinja: there is no such file" in output
    marker = project.folder / "results/parameters.txt"  # of the check itself
    assert {path for path in files if not path.exists()} <= {marker}


def test_experiments_stand_side_by_side(project: Project):
    run = ("dvc", "exp", "run", "-n")
    fast = name_of({"train.learning_rate": 4e-3, "train.seed": 1}, "base")
    output = project(*run, fast, "-S", "train.learning_rate=0.004", "-S", "train.seed=1")
    assert executed(output) == ["train", "export_checkpoint", "evaluate", "write_report"]
    table = project("sh", "-c", SHOW, COLUMNS="120").splitlines()
    shown = {"tau", "speedup", "top1_agreement", "validation_loss"}
    assert table[1].split()[0] == "Experiment"
    assert set(table[1].split()[1:]) == shown | {"train.learning_rate", "train.seed"}
    assert max(map(len, table)) <= 117  # a tau of 1.2345 needs three more than the tiny one's 1
    (line,) = [line for line in table if f"[{fast}]" in line]
    assert line.split()[-2:] == ["0.004", "1"]
    changes = ("-S", "evaluate.draft_length=2", "-S", "evaluate.static_tree=auto")
    assert executed(project(*run, "chain", *changes)) == ["evaluate", "write_report"]
    assert "forecast before it was measured" in (project.folder / "results/report.md").read_text()
    table = project("dvc", "exp", "show", "--csv")
    rows = list(csv.DictReader(table[table.index("Experiment") :].splitlines()))
    by_name = {row["Experiment"]: row for row in rows}
    assert by_name[fast]["train.learning_rate"] == "0.004"
    assert by_name["chain"]["evaluate.draft_length"] == "2"  # and the rate of the run before
    assert by_name[fast]["evaluate.draft_length"] != "2"
    measured = [json.loads((project.folder / path).read_text()) for path in METRICS]
    # DVC leaves out a rate that no run has: a tiny draft's chain never comes that far
    wanted = {key for metrics in measured for key, value in metrics.items() if value is not None}
    assert {"tau", "alpha_0", "lossless", "validation_loss"} <= wanted <= set(rows[0])
    assert by_name[fast]["tau"] and by_name["chain"]["tau"]
    runs = (fast, "chain", "results/evaluate")
    compared = project("python", "-m", "tools.compare", *runs, COLUMNS="200")
    assert compared.count("tau of a chain") >= 2  # of either run after the first
    page = (project.folder / "runs/compare.html").read_text()
    assert "evaluate.draft_length" in page  # differs, and the rate of training does not
    assert "train.learning_rate" not in page
    assert "neither a folder of results nor an experiment" in project(
        "python", "-m", "tools.compare", fast, "slow", code=1
    )


def test_an_experiment_in_a_copy_runs_the_copys_code(project: Project):
    project.edit("eagle/report/charts.py", "nats a position", "CHANGED UNIT")
    project("dvc", "exp", "run", "--temp", "-n", "copy")
    project("dvc", "exp", "apply", "copy")
    assert "CHANGED UNIT" in (project.folder / "results/plots/loss.svg").read_text()


def test_plots_come_from_the_history_and_need_no_network(project: Project):
    project("python", "-m", "tools.offline_plots")
    project("dvc", "plots", "diff", "HEAD")
    assert project("git", "status", "--short") == ""
    history = list(csv.DictReader((project.folder / "results/train/history.csv").open()))
    plots = yaml.safe_load((project.folder / "dvc.yaml").read_text())["plots"]
    drawn = [spec["y"] for plot in plots for spec in plot.values()]
    named = {column for y in drawn for column in y.get("results/train/history.csv", [])}
    assert named <= set(history[0])
    assert named
    assert drawn_without_network(project.folder / "dvc_plots/index.html") == len(plots)


def test_regenerated_replies_are_the_verifiers(project: Project):
    project.set("regenerate", enabled=True)
    project.set("sharegpt", n=6, frac=None)
    assert "regenerate_replies" in executed(project("dvc", "repro", "regenerate_replies"))
    before, after = (
        [json.loads(line) for line in (project.folder / path).read_text().splitlines()]
        for path in ("resources/sharegpt/train.jsonl", "resources/replies/train.jsonl")
    )
    assert {row["id"] for row in after} <= {row["id"] for row in before}
    asked = {row["id"]: row["messages"] for row in before}
    for row in after:
        assert row["messages"][0] == asked[row["id"]][0]
        assert row["messages"][1]["content"] != asked[row["id"]][1]["content"]


PRIVATE = (
    "dvc add --quiet resources/conversations/mine",
    "git add resources/conversations/mine.dvc resources/conversations/.gitignore",
)
"""The commands of docs/comparing.md for data that must stay out of git."""


@pytest.fixture
def private(project: Project) -> Project:
    """The project with conversations that git does not know, as docs/comparing.md has it."""
    page = (Path(__file__).parents[2] / "docs/comparing.md").read_text()
    assert all(command in page for command in PRIVATE)
    conversations = project.folder / "resources/conversations"
    (conversations / "mine").mkdir()
    shutil.move(conversations / "tiny.json", conversations / "mine/secret.json")
    project.set("sharegpt", source="resources/conversations/mine")
    output = project("python", "-m", "tools.sweep", "evaluate.seed=1", code=1)
    assert "secret.json: neither in git nor in DVC" in output
    for command in PRIVATE:
        project(*command.split())
    project("git", "commit", "--quiet", "--all", "--message", "data in DVC")
    return project


@pytest.mark.long
def test_a_sweep_runs_each_of_its_parameters_from_the_same_base(private: Project):
    before = (private.folder / "params.yaml").read_bytes()
    sweep = ("python", "-m", "tools.sweep")
    output = private(*sweep, "evaluate.seed=1", "evaluate.questions=1,2")
    assert "2 runs, 0 of them have succeeded before" in output
    assert "sweep: 2 of 2 runs have succeeded" in output
    assert (private.folder / "params.yaml").read_bytes() == before
    # what has succeeded is not repeated; a third is not run with the others' parameters
    output = private(*sweep, "evaluate.seed=1,7", "evaluate.questions=2")
    assert "2 runs, 1 of them have succeeded before" in output
    table = private("dvc", "exp", "show", "--csv")
    rows = list(csv.DictReader(table[table.index("Experiment") :].splitlines()))
    found = {(row["evaluate.seed"], row["evaluate.questions"]) for row in rows if row["Experiment"]}
    assert found == {("1", "1"), ("1", "2"), ("7", "2")}


@pytest.mark.long
def test_queued_experiments_have_private_data_that_git_never_sees(private: Project):
    private("dvc", "exp", "run", "--queue", "-n", "queued", "-S", "sharegpt.shuffle_seed=9")
    private("dvc", "exp", "run", "--run-all")
    private("dvc", "exp", "apply", "queued")
    statistics = json.loads((private.folder / "resources/sharegpt/statistics.json").read_text())
    assert statistics["read"] == 30
    assert "secret.json" not in private("git", "log", "--all", "--format=", "--name-only")
