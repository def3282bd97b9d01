"""What made a draft is said and compared with the checkout, and an altered byte is named."""

import hashlib
import subprocess

import pytest
import yaml

from eagle.errors import InputError
from eagle.files import CHECKSUMS, hashes_of, whole_folder, write_checksums, write_json
from tests.tiny import flip
from tools.verify_export import verify_export

PARAMETERS = {"epochs": 2, "attn": "sdpa", "world": 1}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An exported draft in a checkout whose commit trained it."""
    monkeypatch.chdir(tmp_path)
    inputs = {}
    for name, path in (("verifier", "resources/verifier"), ("data", "resources/tokens")):
        with whole_folder(tmp_path / path) as partial:
            (partial / "file").write_text(name)
        (line,) = hashes_of(tmp_path / path).items()
        inputs[name] = hashlib.sha256(f"{line[0]}\0{line[1]}\n".encode()).hexdigest()
    git = ("git", "-c", "user.email=a@b.c", "-c", "user.name=n")
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "x"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    training = {
        "parameters": PARAMETERS,
        "inputs": inputs | {"code": "c0de"},
        "git_commit": head.stdout.strip(),
        "git_dirty": False,
    }
    draft = tmp_path / "models/export/vllm"
    with whole_folder(draft) as partial:
        (partial / "config.json").write_text("{}")
        (partial / "model.safetensors").write_bytes(bytes(range(256)))
        (partial / "README.md").write_text(f"{inputs} c0de")
        origin = {"layout": "vllm", "checkpoint": "best", "training": training, "evaluation": {}}
        write_json(partial / "provenance.json", origin)
    outs = [
        {"path": f"models/export/vllm/{name}", "md5": hashlib.md5(content).hexdigest()}
        for name, content in (("config.json", b"{}"), ("model.safetensors", bytes(range(256))))
    ]
    train = {"params": {"params.yaml": {"train": {"epochs": 2, "attn": "auto"}}}}
    export = {"outs": outs, "params": {"params.yaml": {"export": {"checkpoint": "best"}}}}
    lock = {"stages": {"train": train, "export_checkpoint": export}}
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump(lock))
    return draft


def said(folder, capsys, code: int) -> str:
    assert verify_export(folder) == code
    return capsys.readouterr().out


def test_what_made_it_is_said_and_agrees(folder, capsys):
    text = said(folder, capsys, 0)
    assert "which HEAD has" in text
    for what in ("config.json", "model.safetensors", "parameters", "verifier", "data"):
        assert any(line.split()[:2] == [what, "agrees"] for line in text.splitlines()), what
    assert "4 files, 0 altered; 0 of 8 answers differ" in text


@pytest.mark.parametrize("at", [0, 0.5, 1])
@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "README.md", "provenance.json", CHECKSUMS]
)
def test_an_altered_byte_is_named(folder, capsys, name, at):
    flip(folder / name, at)
    text = said(folder, capsys, 1)
    assert f"{folder / name}: " in text or (name == CHECKSUMS and CHECKSUMS in text)


def test_added_and_missing_files_are_named(folder, capsys):
    (folder / "added.bin").write_text("x")
    (folder / "README.md").unlink()
    text = said(folder, capsys, 1)
    assert "added.bin: was added" in text
    assert "README.md: is missing" in text


def test_what_differs_from_the_checkout_is_named(folder, tmp_path, capsys):
    (tmp_path / "dvc.lock").write_text(
        (tmp_path / "dvc.lock").read_text().replace("epochs: 2", "epochs: 3")
    )
    with whole_folder(tmp_path / "resources/tokens") as partial:
        (partial / "file").write_text("other data")
    text = said(folder, capsys, 1)
    assert "epochs is 2, dvc.lock has 3" in text
    assert any(line.split()[:2] == ["data", "DIFFERS"] for line in text.splitlines())


def test_weights_whose_list_was_made_anew_differ_from_dvc_lock(folder, capsys):
    """Whoever alters a draft can alter its list as well."""
    flip(folder / "model.safetensors")
    write_checksums(folder, hashes_of(folder))
    text = said(folder, capsys, 1)
    assert "0 altered" in text
    assert any(line.split()[:2] == ["model.safetensors", "DIFFERS"] for line in text.splitlines())


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(InputError, match="no draft that this project exported"):
        verify_export(tmp_path)
