"""Downloads from the hub are checked, resumed and kept; its refusals say what to do."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from eagle.errors import InputError
from eagle.export.published import fetch_draft
from eagle.files import sha256_of_file
from eagle.hub import fetch_dataset_file
from eagle.verifier.download import fetch_verifier
from tests.conftest import ROOT
from tests.hub import COMMIT, Hub, environment, serve
from tests.tiny import make_verifier, split_weights

UNWANTED = {"pytorch_model.bin", "modeling_own.py", "consolidated.safetensors"}


@pytest.fixture(scope="module")
def sharded(tmp_path_factory) -> Path:
    """A verifier in several weight files, with files beside them that are not wanted."""
    folder = split_weights(make_verifier(tmp_path_factory.mktemp("sharded") / "v"))
    for unwanted in UNWANTED:
        (folder / unwanted).write_text("unwanted")
    return folder


def fetch(folder: Path, name: str = "open") -> Path:
    """Fetch a verifier into `folder` from a repository whose owner is the test's own."""
    folder.mkdir()
    fetch_verifier(f"hub:{folder.parent.name}/{name}", COMMIT, folder)
    return folder


def names_of(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_hub_serves_a_verifier(tiny_verifier, tmp_path):
    with serve(tiny_verifier):
        folder = fetch(tmp_path / "v")
    assert names_of(folder) == names_of(tiny_verifier) | {"manifest.json"}
    for name in ("model.safetensors", "config.json"):
        assert sha256_of_file(folder / name) == sha256_of_file(tiny_verifier / name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gated", "is gated; ask for access at .*/gated, then export HF_TOKEN="),
        ("nowhere", "no such repository, or a private one"),
        ("rewound", "no such revision"),
    ],
)
def test_the_hubs_refusals_say_what_to_do(tiny_verifier, tmp_path, name, expected):
    message = f"verifier.source = hub:{tmp_path.name}/{name}: .*{expected}"
    with serve(tiny_verifier), pytest.raises(InputError, match=message):
        fetch(tmp_path / "v", name)


@pytest.mark.parametrize(
    ("name", "pickled", "expected"),
    [
        ("safe", False, {"config.json", "model.safetensors"}),
        ("pickled", True, {"config.json", "model.safetensors", "pytorch_model.bin"}),
    ],
)
def test_of_a_draft_only_config_and_weights_are_fetched(
    tiny_verifier, tmp_path, name, pickled, expected
):
    published, folder = tmp_path / "published", tmp_path / "draft"
    shutil.copytree(tiny_verifier, published)
    (published / "pytorch_model.bin").write_text("a pickle")
    folder.mkdir()
    with serve(published):
        fetch_draft(f"hub:{tmp_path.name}/{name}", COMMIT, pickled, folder)
    assert names_of(folder) == expected


def test_a_draft_that_the_hub_does_not_give(tiny_verifier, tmp_path):
    source = f"hub:{tmp_path.name}/gated"
    with (
        serve(tiny_verifier),
        pytest.raises(InputError, match=f"^{source}: the repository is gated; ask for access at"),
    ):
        fetch_draft(source, COMMIT, False, tmp_path)


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
    """Yields the handler; `serve` makes a class of it, which reads these attributes."""
    handler = type("Flawed", (FlawedHub,), flaws | {"sent": []})
    with serve(folder, handler):
        yield handler


def test_a_cut_connection_is_taken_up_where_it_broke(tmp_path):
    megabyte = 2**20
    published = make_verifier(tmp_path / "published", intermediate_size=65_000)  # 50 MB
    with flawed(published, cuts=2) as handler:
        folder = fetch(tmp_path / "v")
    ranges = [asked for name, asked in handler.sent if name == "model.safetensors"]
    # the client keeps pieces of 10 MB: cut at 25 MB, and at 35 of the 20 to 50 MB left
    assert ranges == [None, f"bytes={20 * megabyte}-", f"bytes={30 * megabyte}-"]
    for name in ("model.safetensors", "config.json"):
        assert sha256_of_file(folder / name) == sha256_of_file(published / name)


def test_what_was_finished_before_an_interruption_is_not_fetched_again(sharded, tmp_path):
    with flawed(sharded) as handler:
        wanted = names_of(sharded) - UNWANTED
        last = max(name for name in wanted if name.endswith(".safetensors"))
        handler.wrong = last
        with pytest.raises(InputError, match=f"{last} is not what the hub holds"):
            fetch(tmp_path / "first")
        handler.wrong = None
        handler.sent.clear()
        folder = fetch(tmp_path / "v")
        assert [name for name, _ in handler.sent] == [last]
        assert names_of(folder) == wanted | {"manifest.json", "model.safetensors.index.json"}


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_wrong_byte_is_refused_by_name_and_fetched_anew(tiny_verifier, tmp_path, name):
    with flawed(tiny_verifier, wrong=name) as handler:
        message = f"verifier.source = hub:{tmp_path.name}/open: {name} is not what the hub holds"
        with pytest.raises(InputError, match=message):
            fetch(tmp_path / "v")
        handler.wrong = None
        fetch(tmp_path / "again")


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
        (GatedFiles, "is gated; ask for access at .*/open, then export HF_TOKEN="),
        (OtherChecksums, "the hub gave '1-65' where its checksum is expected; a mirror must"),
    ],
)
def test_files_that_are_not_given_or_cannot_be_checked(tiny_verifier, tmp_path, handler, expected):
    with serve(tiny_verifier, handler), pytest.raises(InputError, match=expected):
        fetch(tmp_path / "v")


class HostileHub(Hub):
    """Gives names that lead out of the client's cache: in its headers, in its list, or both."""

    etag: str | None = None
    commit: str | None = None
    listed: dict

    def _answer(self, status: int, content: bytes, headers: dict, body: bool):
        if "/tree/" in self.path:
            content = json.dumps([file | self.listed for file in json.loads(content)]).encode()
        elif self.path.startswith("/api/models/") and self.commit:
            content = json.dumps(json.loads(content) | {"sha": self.commit}).encode()
        elif "ETag" in headers:
            headers = headers | ({"X-Linked-Etag": f'"{self.etag}"'} if self.etag else {})
            headers = headers | ({"X-Repo-Commit": self.commit} if self.commit else {})
        super()._answer(status, content, headers, body)


OUTSIDE = "../../../outside"
LFS = {"size": 1, "pointerSize": 1}


@pytest.mark.parametrize(
    ("flaws", "revision"),
    [
        ({"etag": OUTSIDE}, COMMIT),
        ({"etag": "/proc/outside"}, COMMIT),
        ({"etag": "..\\outside"}, COMMIT),
        ({"commit": OUTSIDE}, COMMIT),
        ({"commit": OUTSIDE}, None),
        ({"listed": {"lfs": {"oid": OUTSIDE, **LFS}, "xetHash": "ab" * 32}}, COMMIT),
        ({"listed": {"path": f"{OUTSIDE}.json"}}, COMMIT),
        ({"listed": {"path": "/proc/outside.json"}}, COMMIT),
        ({"listed": {"path": "..\\outside.json"}}, COMMIT),
        ({"listed": {"path": "a\0.json"}}, COMMIT),
    ],
)
def test_no_name_of_a_hub_leads_out_of_the_cache(tiny_verifier, tmp_path, flaws, revision):
    handler = type("Hostile", (HostileHub,), {"listed": {}} | flaws)
    home = Path(os.environ["HF_HOME"])
    (tmp_path / "v").mkdir()
    expected = f"verifier.source = hub:{tmp_path.name}/open: the hub gave the .*(outside|a.x00)"
    with serve(tiny_verifier, handler), pytest.raises(InputError, match=expected):
        fetch_verifier(f"hub:{tmp_path.name}/open", revision, tmp_path / "v")
    assert not list(home.rglob("*outside*"))
    assert not names_of(tmp_path / "v")


@pytest.mark.parametrize("listed", [{"path": None}, {"lfs": 1}, {"lfs": {"a": 1}}])
def test_a_list_of_another_form_is_one_message(tiny_verifier, tmp_path, listed):
    handler = type("Hostile", (HostileHub,), {"listed": listed})
    with serve(tiny_verifier, handler), pytest.raises(InputError, match="hub gave|a hub's form"):
        fetch(tmp_path / "v")


def test_a_wrong_byte_in_a_file_of_conversations_is_refused(tmp_path):
    published = tmp_path / "published"
    published.mkdir()
    (published / "a.json").write_text("[]")
    name = f"hub:{tmp_path.name}/data/a.json"
    with flawed(published, wrong="a.json") as handler:
        with pytest.raises(InputError, match="^source: a.json is not what the hub holds"):
            fetch_dataset_file(name, COMMIT, "source")
        handler.wrong = None
        assert fetch_dataset_file(name, COMMIT, "source").read_text() == "[]"


def test_no_message_shows_the_password_of_a_hub_or_a_proxy(tmp_path):
    with_password = "://user:pass-canary@127.0.0.1:9"
    finished = fetch_elsewhere(
        tmp_path, "hub:org/open", HF_TOKEN="hf_canary01", HTTP_PROXY=f"ftp{with_password}",
        **environment(f"http{with_password}", tmp_path),
    )  # fmt: skip
    (message,) = finished.stderr.strip().splitlines()
    assert message.startswith("error: verifier.source = hub:org/open: what http://127.0.0.1:9 ")
    assert "ftp://127.0.0.1:9" in message
    assert "canary" not in finished.stdout + finished.stderr


def test_pickled_weights_alone_are_refused(tiny_verifier, tmp_path):
    published = tmp_path / "published"
    shutil.copytree(tiny_verifier, published)
    (published / "model.safetensors").rename(published / "pytorch_model.bin")
    expected = "weights .* missing; .*Pickled weights .* choose a commit"
    with serve(published), pytest.raises(InputError, match=expected):
        fetch(tmp_path / "v")


FETCH = """
import sys
from pathlib import Path
from eagle.errors import one_clear_message
from eagle.verifier.download import fetch_verifier
with one_clear_message():
    for source in sys.argv[2:]:
        folder = Path(source.rpartition("/")[2])
        folder.mkdir()
        fetch_verifier(source, sys.argv[1], folder)
"""


def fetch_elsewhere(cwd: Path, *sources: str, **variables: str) -> subprocess.CompletedProcess:
    """In a process of its own: the client reads these variables once."""
    return subprocess.run(
        [sys.executable, "-c", FETCH, COMMIT, *sources], cwd=cwd, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | variables, timeout=120,
    )  # fmt: skip


def test_offline_the_cache_is_the_only_source(tiny_verifier, tmp_path):
    with flawed(tiny_verifier) as handler:
        folder = fetch(tmp_path / "v", "kept")
        handler.sent.clear()
        kept, never = (f"hub:{tmp_path.name}/{name}" for name in ("kept", "never-fetched"))
        finished = fetch_elsewhere(tmp_path, kept, never, HF_HUB_OFFLINE="1")
        assert not handler.sent
    assert names_of(tmp_path / "kept") == names_of(folder)
    assert finished.returncode == 1
    (message,) = finished.stderr.strip().splitlines()
    assert message.startswith(f"error: verifier.source = {never}: the hub at http://127.0.0.1:")
    assert "cannot be reached" in message


@pytest.mark.long  # the client tries for twenty seconds
def test_a_hub_that_does_not_answer(tmp_path):
    nobody = environment("http://user:canary@127.0.0.1:9", tmp_path)
    finished = fetch_elsewhere(tmp_path, "hub:org/open", **nobody)
    assert finished.returncode == 1
    assert "the hub at http://127.0.0.1:9 cannot be reached" in finished.stderr
    assert "requesting GET http://127.0.0.1:9/" in finished.stderr  # the client's own log
    assert "canary" not in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_config_that_cannot_be_a_verifiers_is_refused_before_its_weights_are_fetched(
    tiny_verifier, tmp_path
):
    published = tmp_path / "published"
    shutil.copytree(tiny_verifier, published)
    config = json.loads((published / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "awq", "bits": 4}
    (published / "config.json").write_text(json.dumps(config))
    with flawed(published) as handler, pytest.raises(InputError, match="quantised by awq"):
        fetch(tmp_path / "v")
    assert "model.safetensors" not in [name for name, _ in handler.sent]
