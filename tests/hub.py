"""A hub on this machine that the real hub client talks to, over HTTP."""

import atexit
import functools
import hashlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from eagle.files import sha256_of_file

REFUSALS = {
    "gated": (403, "GatedRepo"),
    "nowhere": (401, "RepoNotFound"),
    "rewound": (404, "RevisionNotFound"),
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def checksum(path: Path) -> dict[str, str]:
    """The headers in which the hub gives a file's checksum: SHA-256 for a large file, git's hash
    for a small one."""
    if path.suffix == ".safetensors":
        return {"X-Linked-Etag": f'"{sha256_of_file(path)}"', "ETag": '"of-the-storage-behind"'}
    content = path.read_bytes()
    return {"ETag": f'"{hashlib.sha1(b"blob %d" % len(content) + bytes(1) + content).hexdigest()}"'}


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as downloads need: every repository holds the folder's files, except
    those named in REFUSALS."""

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
        revision, _, name = self.path.partition("/resolve/")[2].partition("/")
        path = self.folder / name
        if not path.is_file():
            self._answer(404, b"{}", {"X-Error-Code": "EntryNotFound"}, body)
            return
        self._file(path, checksum(path) | {"X-Repo-Commit": revision}, body)

    def _file(self, path: Path, headers: dict, body: bool):
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


_serving: list[type[Hub]] = []


@functools.cache
def start() -> None:
    """Give this process and those it starts a hub of its own and an empty cache.

    The hub client reads its address once, so this comes before it is imported. No test can reach
    the real hub.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *request: _serving[-1](*request))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    home = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    os.environ |= environment(f"http://127.0.0.1:{server.server_port}", Path(home))


def environment(address: str, home: Path) -> dict[str, str]:
    """Variables of a process whose hub client talks to `address` alone and caches in `home`."""
    return {
        "HF_ENDPOINT": address,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }


@contextmanager
def serve(folder: Path, handler: type[Hub] = Hub) -> Iterator[None]:
    """Let this process's hub hold the files of `folder` in every repository.

    The hub client keeps what it downloaded, by repository and commit: a test that must not find
    the files of another uses a repository of its own.
    """
    _serving.append(type("Here", (handler,), {"folder": folder}))
    try:
        yield
    finally:
        _serving.pop()
