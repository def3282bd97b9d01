"""Replies from a server: the same as the transformers backend's, through what servers do wrong."""

import json
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from eagle.config import Machine
from eagle.errors import InputError
from eagle.replies import completion_server
from eagle.replies.completion_server import CompletionServer
from eagle.replies.replies import Journal, Prompt, TransformersBackend, regenerate
from eagle.tokens.tokenizer import load_tokenizer
from eagle.tracking import Progress
from eagle.verifier.verifier import Verifier
from tests.tiny import MARKED, make_messages, settings

SETTINGS = settings("regenerate", temperature=1.0, maximum_new_tokens=6, dtype="float32")


class Handler(BaseHTTPRequestHandler):
    """/v1/models and /v1/completions over the tiny verifier; `failures` come first."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._json(200, {"data": [{"id": name} | self.more for name in self.models]})

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.lock:
            self.requests.append((request, self.headers.get("Authorization")))
            failure = self.failures.pop(0) if self.failures else None
        if failure == "cut":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{")
            self.close_connection = True
        elif failure == "hang":
            time.sleep(0.6)
            self.close_connection = True
        elif failure in ("drip", "headers"):  # a byte at a time, for ever
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            self.wfile.write(b"Content-Length: 99999\r\n\r\n" if failure == "drip" else b"X: ")
            with suppress(OSError):
                while True:
                    self.wfile.write(b" ")
                    time.sleep(0.05)
        elif failure == "page":
            self._send(200, b"<html>busy</html>", {})
        elif failure is not None:
            status, headers = failure
            self._json(status, {"error": {"message": f"failing with {status}"}}, headers)
        else:
            self._complete(request)

    def _complete(self, request: dict):
        prompt = Prompt(0, 0, request["prompt"], request["max_tokens"], request["seed"])
        with self.lock:
            ((_, reply),) = self.backend.replies([prompt], ())
        finish = "stop" if reply.complete else "length"
        self._json(200, {
            "choices": [{"text": " " + reply.text, "finish_reason": finish}],
            "usage": {"completion_tokens": reply.tokens},
        })  # fmt: skip

    def _json(self, status: int, content: dict, headers: dict | None = None):
        self._send(status, json.dumps(content).encode(), headers or {})

    def _send(self, status: int, content: bytes, headers: dict):
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_arguments):
        pass


@pytest.fixture(scope="module")
def tokenizer(tiny_verifier):
    return load_tokenizer(tiny_verifier)


@pytest.fixture(scope="module")
def backend(tiny_verifier, tokenizer):
    verifier = Verifier.load(tiny_verifier, torch.float32, torch.device("cpu"))
    return TransformersBackend(verifier, tokenizer, SETTINGS)


@pytest.fixture
def serving(backend, monkeypatch):
    monkeypatch.setattr(completion_server, "FIRST_WAIT", 0.02)

    @contextmanager
    def _serving(failures=(), models=("tiny",), more=None):
        attributes = {
            "backend": backend, "failures": list(failures), "models": models, "more": more or {},
            "requests": [], "lock": threading.Lock(),
        }  # fmt: skip
        handler = type("Served", (Handler,), attributes)
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        handler.url = f"http://127.0.0.1:{server.server_port}/v1"
        try:
            yield handler
        finally:
            server.shutdown()
            server.server_close()

    return _serving


def machine(url: str, **values) -> Machine:
    fixed = {"completion_server": url, "completion_requests": 4, "completion_seconds": 0.4}
    return settings("machine", **fixed | values)


def write(folder, rows, backend, tokenizer):
    with Journal(folder, "test") as journal, Progress("test", 1, "replies", 1e9) as progress:
        return regenerate(rows, backend, tokenizer, MARKED, SETTINGS, journal, progress)


FAILURES = [
    (500, {}),
    "cut",
    (429, {"Retry-After": "0.05"}),
    "hang",
    (503, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
    "drip",
    (429, {"Retry-After": "²"}),
    "headers",
    "page",
]


@pytest.mark.parametrize("failures", [[], FAILURES], ids=["well", "failing"])
def test_a_server_writes_what_the_verifier_writes_here(
    tmp_path, monkeypatch, serving, backend, tokenizer, failures
):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    rows = make_messages(8)
    here, counts = write(tmp_path / "here", rows, backend, tokenizer)
    with serving(failures) as server:
        served = CompletionServer(SETTINGS, machine(server.url), 256)
        there, served_counts = write(tmp_path / "there", rows, served, tokenizer)
    assert (there, served_counts) == (here, counts)
    assert len(server.requests) == counts["replies"] + len(failures)
    for request, key in server.requests:
        assert (request["model"], request["temperature"]) == ("tiny", 1.0)
        # nothing is left to the model's generation_config.json, which servers go by
        assert [request[name] for name in ("top_p", "top_k", "min_p")] == [1.0, -1, 0.0]
        assert request["repetition_penalty"] == 1.0
        assert key == "Bearer secret"


def test_retry_after_is_waited_for(serving):
    with serving([(429, {"Retry-After": "0.3"})]) as server:
        served = CompletionServer(SETTINGS, machine(server.url), 256)
        started = time.monotonic()
        list(served.replies([Prompt(0, 0, [5], 1, 0)], ()))
        assert time.monotonic() - started >= 0.3


def test_a_server_that_breaks_down_leaves_what_it_wrote(tmp_path, serving, backend, tokenizer):
    rows = make_messages(8)
    here, counts = write(tmp_path / "here", rows, backend, tokenizer)
    with serving([None, None, None] + [(500, {})] * 99) as server:
        served = CompletionServer(SETTINGS, machine(server.url, completion_requests=1), 256)
        with pytest.raises(InputError, match="failed 8 times, last with HTTP 500.*are kept"):
            write(tmp_path / "there", rows, served, tokenizer)
    with serving() as server:
        served = CompletionServer(SETTINGS, machine(server.url), 256)
        there, resumed = write(tmp_path / "there", rows, served, tokenizer)
    assert there == here
    assert len(server.requests) == counts["replies"] - 3 == resumed["replies"] - resumed["kept"]


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        ((403, {}), r"/completions was refused with HTTP 403: .*failing with 403"),
        ((401, {}), "HTTP 401.*export OPENAI_API_KEY="),
        ((404, {}), "HTTP 404.*ends with /v1"),
    ],
)
def test_a_refusal_is_not_asked_again(serving, failure, expected):
    with serving([failure]) as server:
        served = CompletionServer(SETTINGS, machine(server.url), 256)
        with pytest.raises(InputError, match=expected):
            list(served.replies([Prompt(0, 0, [5], 1, 0)], ()))
        assert len(server.requests) == 1


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_that_knows_only_openais_fields_is_asked_with_them(serving, capsys, status):
    with serving([(status, {})]) as server:
        served = CompletionServer(SETTINGS, machine(server.url, completion_requests=1), 256)
        assert len(list(served.replies([Prompt(row, 0, [5], 1, 0) for row in range(3)], ()))) == 3
        assert [("top_k" in request, request["top_p"]) for request, _key in server.requests] == [
            (True, 1.0), (False, 1.0), (False, 1.0), (False, 1.0)
        ]  # fmt: skip
    printed = capsys.readouterr().err
    assert printed.count("the server does not take ") == 1
    assert all(name in printed for name in ("top_k", "min_p", "repetition_penalty"))
    with serving([(status, {})] * 2) as server:
        served = CompletionServer(SETTINGS, machine(server.url), 256)
        with pytest.raises(InputError, match=f"was refused with HTTP {status}"):
            list(served.replies([Prompt(0, 0, [5], 1, 0)], ()))


@pytest.mark.parametrize(
    "answer", [[], {"object": "list", "data": None}, {"detail": "no"}, {"data": ["tiny"]}, "no"]
)
def test_an_answer_of_another_form_is_one_message(serving, monkeypatch, answer):
    with serving() as server:
        monkeypatch.setattr(server, "do_GET", lambda handler: handler._json(200, answer))
        with pytest.raises(InputError, match=r"/models answered .* which is not OpenAI's form"):
            CompletionServer(SETTINGS, machine(server.url), 256)
    with serving() as server:
        served = CompletionServer(SETTINGS, machine(server.url), 256)
        monkeypatch.setattr(server, "_complete", lambda handler, _asked: handler._json(200, answer))
        with pytest.raises(InputError, match="/completions answered .* which is not OpenAI's form"):
            list(served.replies([Prompt(0, 0, [5], 1, 0)], ()))


GOOD = {"text": "x", "finish_reason": "stop"}


@pytest.mark.parametrize(
    ("choice", "tokens"),
    [
        ({}, 1),
        (GOOD, -1),
        (GOOD, True),
        (GOOD, 1.5),
        (GOOD, "1"),
        (GOOD, None),
        (GOOD | {"text": None}, 1),
        (GOOD | {"text": ["x"]}, 1),
        (GOOD | {"finish_reason": 1}, 1),
    ],
)
def test_an_answer_of_other_types_is_refused_before_it_is_kept(
    tmp_path, serving, monkeypatch, tokenizer, choice, tokens
):
    with serving() as server:
        served = CompletionServer(SETTINGS, machine(server.url), 256)
        answer = {"choices": [choice], "usage": {"completion_tokens": tokens}}
        monkeypatch.setattr(server, "_complete", lambda handler, _asked: handler._json(200, answer))
        with pytest.raises(InputError, match=r"/completions answered .*not OpenAI's form \(\w+\."):
            write(tmp_path, make_messages(2), served, tokenizer)
    assert [path.read_text() for path in tmp_path.iterdir()] == [""]


def test_an_answer_without_end_is_given_up(serving, monkeypatch):
    monkeypatch.setattr(completion_server, "LARGEST_ANSWER", 100_000)
    with serving() as server:
        served = CompletionServer(SETTINGS, machine(server.url), 256)
        for answer in ("x" * 200_000, {"data": ["x" * 200_000]}):
            monkeypatch.setattr(
                server,
                "_complete",
                lambda handler, _asked, answer=answer: handler._json(400, answer),
            )
            with pytest.raises(InputError, match="/completions answered more than 100,000 bytes"):
                list(served.replies([Prompt(0, 0, [5], 1, 0)], ()))


def test_no_message_shows_key_or_password_though_the_server_repeats_them(serving, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "key-canary")
    with serving() as server:

        def repeat(handler, _asked=None, status=403):
            handler._json(status, {"padding": "x" * 230, "headers": dict(handler.headers)})

        monkeypatch.setattr(server, "_complete", repeat)
        url = server.url.replace("://", "://user:pass-canary@")
        served = CompletionServer(SETTINGS, machine(url), 256)
        with pytest.raises(InputError, match="HTTP 403") as error:
            list(served.replies([Prompt(0, 0, [5], 1, 0)], ()))
        assert "canary" not in str(error.value) and server.url in str(error.value)
        monkeypatch.setattr(server, "do_GET", lambda handler: repeat(handler, status=200))
        with pytest.raises(InputError, match="not OpenAI's form") as error:
            CompletionServer(SETTINGS, machine(url), 256)
        assert "canary" not in str(error.value)


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("HTTP_PROXY", "ftp://user:pass-canary@127.0.0.1", "not the address of a proxy"),
        ("OPENAI_API_KEY", "canary\n", "OPENAI_API_KEY: holds characters"),
        ("OPENAI_API_KEY", "schlüssel-canary", "OPENAI_API_KEY: holds characters"),
    ],
)
def test_a_key_or_proxy_that_cannot_be_used(monkeypatch, variable, value, expected):
    monkeypatch.setenv(variable, value)
    with pytest.raises(InputError, match=expected) as error:
        CompletionServer(SETTINGS, machine("http://127.0.0.1:9/v1"), 256)
    assert "canary" not in str(error.value)


def test_a_refusal_does_not_wait_for_the_other_requests(serving):
    with serving(["hang"] * 3 + [(403, {})]) as server:
        served = CompletionServer(SETTINGS, machine(server.url, completion_seconds=60), 256)
        started = time.monotonic()
        with pytest.raises(InputError, match="HTTP 403"):
            list(served.replies([Prompt(row, 0, [5], 1, 0) for row in range(50)], ()))
        assert time.monotonic() - started < 0.5
        assert len(server.requests) < 10


def test_a_server_must_be_there_and_serve_one_model(serving):
    with serving(models=("a", "b")) as server, pytest.raises(InputError, match="serves a, b; it"):
        CompletionServer(SETTINGS, machine(server.url), 256)
    with pytest.raises(InputError, match="not an address .* like http://localhost:8000/v1"):
        CompletionServer(SETTINGS, machine("http://localhost:port/v1"), 256)
    with pytest.raises(InputError, match="/models failed 1 times, last with ConnectError"):
        CompletionServer(SETTINGS, machine("http://127.0.0.1:9/v1"), 256)
    with serving(more={"max_model_len": 100}) as server:
        assert CompletionServer(SETTINGS, machine(server.url), 256).context == 100
        assert CompletionServer(SETTINGS, machine(server.url), 64).context == 64
