"""The card gets the evaluation's results; the draft is sent only with --upload."""

import base64
import hashlib
import json
import os
import sys

import pytest
from huggingface_hub import ModelCard

from eagle.draft.checkpoint import draft_hash
from eagle.errors import InputError
from eagle.files import write_json, write_text
from eagle.report.card import card
from tests.hub import Hub, serve
from tests.unit.report.test_card import HUB, MEASURED, TRAINED
from tools.push_to_hub import main

WEIGHTS = bytes(range(256)) * 8


class WritableHub(Hub):
    """Answers uploads as well: large files come separately, then one commit names all files."""

    received: dict
    allowed = "Bearer write"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != self.allowed:
            self._answer(401, b"{}", {}, True)
        elif self.path == "/api/repos/create":
            self.received["created"] = json.loads(body)
            self._reply({"url": f"{self._address()}/org/draft"})
        elif self.path == "/api/validate-yaml":
            self.received["card"] = json.loads(body)["content"]
            self._reply({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            modes = [
                {"path": file["path"], "shouldIgnore": False,
                 "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular"}
                for file in json.loads(body)["files"]
            ]  # fmt: skip
            self._reply({"files": modes})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {"oid": o["oid"], "size": o["size"],
                 "actions": {"upload": {"href": f"{self._address()}/lfs/{o['oid']}"}}}
                for o in json.loads(body)["objects"]
            ]  # fmt: skip
            self._reply({"transfer": "basic", "objects": objects})
        elif "/commit/" in self.path:
            self.received["commit"] = [json.loads(line) for line in body.splitlines()]
            address = f"{self._address()}/org/draft/commit/{'1' * 40}"
            self._reply({"success": True, "commitOid": "1" * 40, "commitUrl": address})
        else:
            self._answer(404, b"{}", {}, True)

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.received[self.path.rpartition("/")[2]] = body
        self._answer(200, b"", {}, False)

    def _reply(self, content: dict):
        self._answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"}, True)

    def _address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def exported(tmp_path):
    """The folders after `dvc repro` that publishing reads."""
    for layout in ("official", "vllm"):
        folder = tmp_path / "models/export" / layout
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(WEIGHTS)
        write_json(folder / "config.json", {})
        write_text(folder / "README.md", card(layout, HUB, "llama2", TRAINED, MEASURED))
        (folder / ".gitignore").write_text("/config.json\n")  # as DVC may write it
    results = tmp_path / "results/evaluate"
    write_json(results / "metrics.json", MEASURED.metrics)
    write_json(results / "details.json", MEASURED.details)
    inputs = {"draft": draft_hash(tmp_path / "models/export/official")}
    evaluated = MEASURED.provenance | {"inputs": inputs}
    write_json(results / "provenance.json", evaluated)
    return tmp_path


@pytest.fixture
def push(exported, monkeypatch, capsys):
    """Run the command in the project; returns what it printed."""
    monkeypatch.chdir(exported)

    def run(token: str, *more: str) -> str:
        monkeypatch.setenv("HF_TOKEN", token)
        command = ["push_to_hub", "org/draft", "--layout", "vllm", *more]
        monkeypatch.setattr(sys, "argv", command)
        main()
        return capsys.readouterr().out

    return run


@pytest.fixture
def received():
    return {}


@pytest.fixture
def hub(exported, received):
    handler = type("Receiving", (WritableHub,), {"received": received})
    with serve(exported, handler):
        yield


def test_without_upload_the_card_is_written_and_nothing_sent(exported, push, hub, received):
    assert "nothing was sent" in push("write")
    assert not received
    text = (exported / "models/publish/vllm/README.md").read_text()
    assert "8 questions of mt_bench" in text
    assert {path.name for path in (exported / "models/publish/vllm").iterdir()} == {
        "README.md", "SHA256SUMS.txt", "config.json", "model.safetensors",
    }  # fmt: skip
    data = ModelCard(text).data
    results = {result.metric_type: result.metric_value for result in data.eval_results}
    assert results == {
        name: value
        for name, value in MEASURED.metrics.items()
        if name not in ("alpha_4", "lossless")
    }
    assert (data.license, data.base_model) == ("llama2", "org/model")
    assert "model-index" not in (exported / "models/export/vllm/README.md").read_text()


def test_an_upload_is_one_commit_of_card_and_weights(exported, push, hub, received):
    address = os.environ["HF_ENDPOINT"]
    assert f"uploaded, {address}/org/draft/commit/" in push("write", "--upload")
    assert received["created"]["name"] == "draft"
    assert received["created"]["visibility"] == "private"
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    assert received[digest] == WEIGHTS
    _, *files = received["commit"]
    sent = {file["value"]["path"]: file["value"] for file in files}
    assert sent["model.safetensors"]["oid"] == digest
    ready = exported / "models/publish/vllm/README.md"
    assert base64.b64decode(sent["README.md"]["content"]) == ready.read_bytes()


def test_what_cannot_be_published_is_explained(exported, push, hub):
    with pytest.raises(InputError, match="^upload to org/draft: .*HF_TOKEN"):
        push("read", "--upload")
    write_json(exported / "models/export/official/config.json", {"changed": True})
    with pytest.raises(InputError, match="results are not those of the draft in models/export"):
        push("write")
