"""A bit that flips on the disk is named: by the stage that reads it, and by tools.verify."""

import functools
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
from dvc.repo import Repo

import eagle.train
from eagle.config import load_params
from eagle.errors import InputError
from eagle.files import CHECKSUMS
from eagle.training.on_disk import cache_folder, find_states
from scripts import (
    evaluate,
    export_checkpoint,
    regenerate_replies,
    tokenize_dataset,
    train,
    validate_template,
    write_report,
)
from tests.integration.conftest import Project
from tests.tiny import flip
from tools.push_to_hub import prepare
from tools.verify import damaged_files


def trained() -> None:
    """Training, without the processes around it."""
    eagle.train.train(train.train_config(load_params()))


READERS: dict[str, Callable[[], object]] = {
    "resources/sharegpt/train.jsonl": regenerate_replies.main,
    "resources/sharegpt/validation.jsonl": regenerate_replies.main,
    f"resources/sharegpt/{CHECKSUMS}": regenerate_replies.main,
    "resources/replies/train.jsonl": validate_template.main,
    "resources/replies/validation.jsonl": tokenize_dataset.main,
    "resources/verifier/tokenizer.json": validate_template.main,
    "resources/verifier/config.json": tokenize_dataset.main,
    "resources/verifier/manifest.json": write_report.main,
    "resources/verifier/model.safetensors": trained,
    f"resources/verifier/{CHECKSUMS}": trained,
    "results/template/chat_template.jinja": tokenize_dataset.main,
    "results/template/report.json": write_report.main,
    "resources/tokens/train.safetensors": trained,
    "resources/tokens/validation.safetensors": evaluate.main,
    "resources/tokens/manifest.json": trained,
    "resources/tokens/statistics.json": write_report.main,
    "models/draft/best/model.safetensors": export_checkpoint.main,
    "models/draft/best/config.json": export_checkpoint.main,
    "models/export/official/model.safetensors": evaluate.main,
    "models/export/official/config.json": evaluate.main,
    f"models/export/{CHECKSUMS}": write_report.main,
    "models/export/vllm/model.safetensors": functools.partial(prepare, "owner/name", "vllm"),
    "models/export/vllm/README.md": functools.partial(prepare, "owner/name", "vllm"),
    "models/export/sglang/config.json": functools.partial(prepare, "owner/name", "sglang"),
    "models/export/sglang/provenance.json": functools.partial(prepare, "owner/name", "sglang"),
    "results/train/metrics.json": write_report.main,
    "results/train/history.csv": write_report.main,
    "results/train/provenance.json": write_report.main,
    "results/evaluate/details.json": write_report.main,
    "results/evaluate/per_prompt.csv": write_report.main,
    "results/evaluate/metrics.json": write_report.main,
}
"""What a stage, or the upload, reads."""
FEW = [
    ("resources/sharegpt/train.jsonl", 0.5),
    ("resources/replies/train.jsonl", 1),
    ("resources/verifier/model.safetensors", 0.5),
    ("resources/verifier/config.json", 0),
    ("results/template/chat_template.jinja", 0.5),
    ("resources/tokens/train.safetensors", 1),
    ("models/draft/best/model.safetensors", 0),
    ("models/export/official/model.safetensors", 0.5),
    ("models/export/vllm/README.md", 0.5),
    ("results/evaluate/details.json", 0.5),
]
AT = (0, 0.5, 1)
"""The first, the middle and the last byte."""


@pytest.fixture
def here(project: Project, monkeypatch) -> Path:
    """The folder of the project, in which this process works."""
    monkeypatch.chdir(project.folder)
    monkeypatch.setenv("EAGLE_CACHE", str(project.folder / ".cache/eagle"))
    return project.folder


def noticed(name: str, at: float) -> None:
    """Flip a bit, start what reads it, and flip it back."""
    flip(Path(name), at)
    with pytest.raises(InputError, match="SHA256SUMS.txt.*python -m tools.verify") as error:
        READERS[name]()
    assert name in str(error.value) or name.endswith(CHECKSUMS)
    flip(Path(name), at)


def damaged() -> str:
    """What verify says of damaged files."""
    with Repo() as repo:
        return "".join(f"{damage.path}: {damage.why}\n" for damage in damaged_files(repo)[0])


def named_by_verify(paths: list[Path], at: float) -> int:
    """Flip a bit in each of some files, all at once; returns how many bits."""
    places = {path.stat().st_ino: path for path in paths if path.stat().st_size}
    for path in places.values():
        flip(path, at)
    said = damaged()
    assert [path for path in paths if path.stat().st_size and str(path) not in said] == []
    for path in places.values():
        flip(path, at)
    return len(places)


def test_a_few_flipped_bits_are_noticed_by_their_reader_and_named_by_verify(here):
    assert damaged() == ""
    for name, at in FEW:
        noticed(name, at)
    named_by_verify([Path(name) for name, _ in FEW], 0.5)
    assert damaged() == ""


@pytest.mark.long
def test_every_file_that_is_read_is_compared_by_its_reader(here):
    for name, at in product(READERS, AT):
        noticed(name, at)


@pytest.mark.long
def test_verify_names_every_flipped_bit(here):
    with Repo() as repo:
        outs = [Path(out.def_path) for out in repo.index.outs]
    (run,) = (path.parent for path in Path("runs").glob("*/best"))
    runs = [*find_states(run), *run.glob("*/*"), *run.glob("*.csv"), run / CHECKSUMS]
    found = [path for folder in (*outs, cache_folder()) for path in (folder, *folder.rglob("*"))]
    files = [path for path in (*found, *runs) if path.is_file()]
    lists = [path for path in files if path.name == CHECKSUMS]
    objects = [path for path in Path(".dvc/cache/files/md5").rglob("*") if path.is_file()]
    bits = 0
    for at in AT:
        bits += named_by_verify([path for path in files if path not in lists], at)
        bits += named_by_verify(lists, at)
        bits += named_by_verify(objects, at)
    assert bits >= 100
    assert damaged() == ""


@pytest.mark.parametrize(
    "damage",
    [
        ("resources/tokens/train.safetensors",),
        ("the object",),
        ("resources/tokens/train.safetensors", "the object"),
    ],
)
@pytest.mark.long
def test_the_command_that_verify_names_mends(project: Project, monkeypatch, damage):
    monkeypatch.chdir(project.folder)
    file = Path("resources/tokens/train.safetensors")
    before = file.read_bytes()
    objects = (path for path in Path(".dvc/cache/files/md5").rglob("*") if path.is_file())
    (object,) = (path for path in objects if path.read_bytes() == before)
    shutil.copy2(file, "copy")  # so that file and object are two
    Path("copy").replace(file)
    for path in damage:
        flip(object if path == "the object" else file)
    output = project("python", "-m", "tools.verify", code=1)
    commands = {line.split("with: ")[1] for line in output.splitlines() if "mend it with" in line}
    assert len(commands) == 1
    project("sh", "-c", commands.pop())
    assert file.read_bytes() == before
    assert "0 damaged" in project("python", "-m", "tools.verify")


@pytest.mark.long
def test_a_damaged_best_draft_is_trained_again_as_it_was(project: Project):
    """The run is that of the same command: its states show from where."""
    published = project.folder / "models/draft/best/model.safetensors"
    before = published.read_bytes()
    (best,) = project.folder.glob("runs/*/best/model.safetensors")
    flip(best)
    output = project("python", "-m", "scripts.train")
    assert f"{best.relative_to(project.folder)}: its SHA-256 is" in output
    assert published.read_bytes() == best.read_bytes() == before
