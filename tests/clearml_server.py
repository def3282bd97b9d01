"""Servers on this machine that ClearML talks to: one that answers, and ones that do not."""

import base64
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

HTML = b"<html>It works!</html>"


def _part(content: dict) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


TOKEN = f"{_part({'alg': 'none'})}.{_part({'exp': 2**32, 'api_version': '2.23'})}."
TASK = {"id": "1", "name": "task", "project": "2", "status": "in_progress", "type": "training"}
# what ClearML reads in the answers; it is content with this for every other request
ANSWERS = {
    "auth.login": {"token": TOKEN},
    "projects.get_all": {"projects": []},
    "projects.create": {"id": "2"},
    "tasks.create": {"id": "1"},
    "tasks.get_by_id": {"task": TASK},
    "tasks.get_all": {"tasks": [TASK]},
    "events.add_batch": {"added": 1, "errors": 0, "errors_info": {}},
}
OTHER_ANSWER = {"updated": 1, "fields": {}}


class ClearMLServer(ThreadingHTTPServer):
    """Answers as ClearML's server does, and keeps the requests."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[tuple[str, bytes]] = []
        self.connections: list[socket.socket] = []
        Thread(target=self.serve_forever, daemon=True).start()

    def process_request(self, request, client_address):
        self.connections.append(request)
        super().process_request(request, client_address)

    def handle_error(self, request, client_address):
        """A client that is killed breaks its connection; that is no error of the server."""

    def die(self) -> None:
        """End, with all connections."""
        self.shutdown()
        self.server_close()
        for connection in self.connections:
            connection.close()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2].partition("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append((name, body))
        meta = {"id": "0", "result_code": 200, "result_subcode": 0, "result_msg": "OK"}
        data = ANSWERS.get(name, OTHER_ANSWER)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps({"meta": meta, "data": data}).encode())

    do_POST = do_PUT = do_GET

    def log_message(self, *_arguments) -> None:
        pass


@contextmanager
def listener(answer: bytes | None) -> Iterator[int]:
    """A port whose listener gives every request this answer, or no answer at all."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        connections = []

        def serve() -> None:
            while True:
                try:
                    connection = server.accept()[0]
                except OSError:  # closed
                    return
                connections.append(connection)
                connection.recv(65536)
                if answer is not None:
                    connection.sendall(answer)
                    connection.close()

        Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


def http(status: str, body: bytes) -> bytes:
    """An HTTP answer."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def unused_port() -> int:
    """A port that refuses connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
