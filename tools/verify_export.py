"""What made an exported draft, whether this checkout would make the same, and altered files."""

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

from eagle.checksums import identity, read_checksums
from eagle.errors import InputError
from eagle.files import CHECKSUMS, files_below, hashes_of, read_json
from eagle.training.run_identity import CHOSEN_BY_TRAINING

LOCK = Path("dvc.lock")
MADE = ("config.json", "model.safetensors")
"""The files that the stage export_checkpoint writes."""
INPUTS = {"verifier": Path("resources/verifier"), "data": Path("resources/tokens")}


class Answer(NamedTuple):
    """One thing that was compared."""

    what: str
    agrees: bool | None
    """None: it cannot be compared here, or it decides nothing."""
    note: str


def verify_export(folder: Path) -> int:
    """Print what was altered in the folder of an exported draft, or else what made it.

    Returns:
        The exit code: 1 if something was altered, or does not agree with this checkout.

    Raises:
        InputError: it is no such folder.
    """
    if not (folder / CHECKSUMS).is_file() or not (folder / "provenance.json").is_file():
        raise InputError(
            f"{folder}: has no {CHECKSUMS} or no provenance.json, so it is no draft that this "
            "project exported; name models/export/LAYOUT or a folder that was downloaded"
        )
    altered = list(_altered(folder))
    for answer in altered:
        print(f"{answer.what}: {answer.note}")
    if altered:
        print(f"verify: {len(altered)} files altered; get the folder again")
        return 1
    answers = list(_origin(folder))
    words = {True: "agrees", False: "DIFFERS", None: "-"}
    for answer in answers:
        print(f"{answer.what:12} {words[answer.agrees]:8} {answer.note}")
    differ = sum(answer.agrees is False for answer in answers)
    files = len(files_below(folder))
    print(f"verify: {files} files, 0 altered; {differ} of {len(answers)} answers differ")
    return 1 if differ else 0


def _altered(folder: Path) -> Iterator[Answer]:
    """Files that are not as they were published."""
    expected, damage = read_checksums(folder)
    yield from (Answer(str(found.path), False, found.why) for found in damage)
    found = {folder / name: sha256 for name, sha256 in hashes_of(folder).items()}
    for path in sorted(expected.keys() | found.keys()):
        if path not in found:
            yield Answer(str(path), False, f"is missing, and {CHECKSUMS} lists it")
        elif path not in expected:
            yield Answer(str(path), False, f"was added: {CHECKSUMS} does not list it")
        elif expected[path] != found[path]:
            why = f"its SHA-256 is {found[path]}, expected {expected[path]} by {CHECKSUMS}"
            yield Answer(str(path), False, why)


def _origin(folder: Path) -> Iterator[Answer]:
    """What made the draft, beside this checkout's dvc.lock, HEAD and outputs."""
    origin = read_json(folder / "provenance.json")
    training = origin["training"]
    stages = _stages()
    yield _commit(training)
    locked = {out["path"]: out["md5"] for out in stages["export_checkpoint"]["outs"]}
    for name in MADE:
        expected = locked[f"models/export/{origin['layout']}/{name}"]
        with (folder / name).open("rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
        yield Answer(name, found == expected, f"md5 {found}, dvc.lock has {expected}")
    parameters = stages["train"]["params"]["params.yaml"]["train"]
    yield _parameters("parameters", training["parameters"], parameters)
    exported = stages["export_checkpoint"]["params"]["params.yaml"]["export"]["checkpoint"]
    note = f"the {origin['checkpoint']} draft, dvc.lock has {exported}"
    yield Answer("checkpoint", origin["checkpoint"] == exported, note)
    card = (folder / "README.md").read_text(encoding="utf-8")
    for name, sha256 in training["inputs"].items():
        if sha256 not in card:
            yield Answer(name, False, f"the card does not name {sha256}")
        elif name not in INPUTS:
            yield Answer(name, None, f"SHA-256 {sha256}")
        elif not INPUTS[name].is_dir():
            note = f"SHA-256 {sha256}; to compare it: dvc pull {INPUTS[name]}, or dvc repro"
            yield Answer(name, None, note)
        else:
            here = identity(INPUTS[name])
            yield Answer(name, here == sha256, f"SHA-256 {sha256}, {INPUTS[name]} has {here}")


def _stages() -> dict:
    """The stages in dvc.lock."""
    if not LOCK.is_file():
        raise InputError(f"{LOCK}: there is no such file; run this in a checkout of the project")
    return yaml.safe_load(LOCK.read_text(encoding="utf-8"))["stages"]


def _parameters(what: str, found: dict, locked: dict) -> Answer:
    """Compare the parameters of a run with those of dvc.lock; training wrote what `auto` became."""
    chosen = {name for name in CHOSEN_BY_TRAINING if locked.get(name) == "auto"}
    names = (found.keys() & locked.keys()) - chosen
    other = [name for name in sorted(names) if found[name] != locked[name]]
    notes = [f"{name} is {found[name]}, dvc.lock has {locked[name]}" for name in other]
    return Answer(what, not other, "; ".join(notes) or f"{len(names)} of the stage train")


def _commit(training: dict) -> Answer:
    """The commit of the code that trained; results are committed after it."""
    commit = training["git_commit"]
    if commit is None:
        return Answer("commit", None, "trained outside a git repository")
    dirty = ", with changes that were not committed" if training["git_dirty"] else ""
    ancestor = subprocess.run(
        ["git", "merge-base", "--is-ancestor", commit, "HEAD"], capture_output=True
    )
    where = {0: "which HEAD has", 1: "which HEAD does not have"}.get(
        ancestor.returncode, "which this repository does not know"
    )
    return Answer("commit", None, f"trained at {commit}{dirty}, {where}")
