"""Replies of the embedded verifier from a real server: vLLM for CPUs, in its own environment."""

import os
import signal
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
import pytest
import torch

from eagle.errors import InputError
from eagle.replies.completion_server import CompletionServer
from eagle.replies.replies import Journal, TransformersBackend, regenerate
from eagle.sharegpt.conversations import read_conversations
from eagle.template.template import load_template
from eagle.tokens.tokenizer import load_tokenizer
from eagle.tracking import Progress
from eagle.verifier.verifier import Verifier
from tests import tiny
from tests.conftest import ROOT
from tools.serve_check import engine_of

VERIFIER = ROOT / "resources/verifier"
CONTEXT = 512


@contextmanager
def vllm(python: str, log: Path):
    """A server of the embedded verifier in float32; yields its process and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    with log.open("w") as output:
        server = subprocess.Popen(
            [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(VERIFIER),
             "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32",
             "--generation-config", "vllm", "--max-model-len", str(CONTEXT), "--enforce-eager"],
            env=os.environ | quiet, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            assert server.poll() is None, log.read_text()[-3000:]
            try:
                if httpx2.get(f"{address}/health").status_code == 200:
                    break
            except httpx2.TransportError:
                time.sleep(1)
        yield server, f"{address}/v1"
    finally:
        server.terminate()
        server.wait(60)
        with suppress(ProcessLookupError):  # a killed server's workers live on
            os.killpg(server.pid, signal.SIGKILL)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_vllm_writes_what_the_verifier_writes_and_a_killed_one_loses_nothing(
    engine_python, tmp_path
):
    if engine_of(Path(engine_python)) != "vllm":
        pytest.skip("ENGINE_PYTHON has no vLLM")
    rows = read_conversations(ROOT / "resources/sharegpt/train.jsonl")[:6]
    tokenizer = load_tokenizer(VERIFIER)
    template = load_template(str(ROOT / "resources/chat_templates/smollm2.jinja"), tokenizer)
    greedy = tiny.settings(
        "regenerate", backend="openai", temperature=0.0, maximum_new_tokens=24, batch_size=6
    )

    def write(name, backend, settings=greedy):
        with Journal(tmp_path, name) as journal, Progress(name, 1, "replies", 1e9) as progress:
            return regenerate(rows, backend, tokenizer, template, settings, journal, progress)

    def served(address, settings=greedy, requests=4):
        machine = tiny.settings(
            "machine",
            completion_server=address,
            completion_requests=requests,
            completion_seconds=120,
        )
        return CompletionServer(settings, machine, 8192)

    verifier = Verifier.load(VERIFIER, torch.float32, torch.device("cpu"))
    here, counts = write("here", TransformersBackend(verifier, tokenizer, greedy))
    with vllm(engine_python, tmp_path / "first.log") as (server, address):
        backend = served(address)
        assert backend.context == CONTEXT
        there, served_counts = write("there", backend)
        sampled = greedy.model_copy(update={"temperature": 0.8})
        draws = [write(name, served(address, sampled), sampled)[0] for name in ("a", "b")]
        one_by_one = served(address, requests=1)
        answered = 0

        def dying(prompts, done, ask=one_by_one.replies):
            nonlocal answered
            for answer in ask(prompts, done):
                yield answer
                answered += 1
                if answered == 2:
                    server.kill()

        one_by_one.replies = dying
        with pytest.raises(InputError, match="failed 8 times, last with ConnectError"):
            write("killed", one_by_one)
    # float32 leaves ties that a batch of other sizes may break the other way
    same = sum(a == b for a, b in zip(here, there, strict=True))
    assert same >= len(rows) - 1
    assert served_counts["replies"] == counts["replies"]
    assert sum(a == b for a, b in zip(*draws, strict=True)) >= len(rows) - 1
    assert draws[0] != there
    with vllm(engine_python, tmp_path / "second.log") as (_, address):
        resumed, resumed_counts = write("killed", served(address))
    assert resumed_counts["kept"] >= 2
    assert sum(a == b for a, b in zip(resumed, there, strict=True)) >= len(rows) - 1
