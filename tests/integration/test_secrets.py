"""Secrets of the environment get into no file and no output, of stages that fail neither."""

import importlib
import json
import traceback

import pytest

from tests.conftest import CANARIES, CANARY, files_with_a_canary
from tests.hub import Hub, serve
from tests.integration.conftest import Project

SERVER = f"http://user:{CANARY}@127.0.0.1:9/v1"


class Repeating(Hub):
    """Refuses, and repeats the request's headers."""

    def do_GET(self, body: bool = True):
        self._answer(403, json.dumps({"error": str(self.headers)}).encode(), {}, body)


def test_a_whole_run_leaves_no_secret(reproduced):
    assert CANARY in (reproduced / ".git/config").read_text()
    assert CANARY not in (reproduced.parent / "repro.log").read_text()
    assert files_with_a_canary(reproduced) == []


@pytest.mark.parametrize(
    ("stage", "section", "values"),
    [
        ("download_model", "verifier", {"source": "hub:org/refused", "revision": "0" * 40}),
        ("prepare_sharegpt", "sharegpt", {"source": f"https://user:{CANARY}@127.0.0.1/a.json"}),
        ("regenerate_replies", "regenerate", {"enabled": True, "backend": "openai"}),
        ("validate_template", "template", {"file": f"http://user:{CANARY}@127.0.0.1/a.jinja"}),
        ("tokenize_dataset", "tokens", {"maximum_model_length": 3}),
        ("train", "train", {"global_batch_size": 3}),
        ("evaluate", "evaluate", {"bench": f"https://user:{CANARY}@127.0.0.1/b.jsonl"}),
        ("export_checkpoint", "machine", {"completion_server": f"{SERVER}\n"}),
        ("write_report", "machine", {"completion_server": "ftp" + SERVER[4:]}),
    ],
)
def test_a_stage_that_fails_shows_and_leaves_no_secret(
    project: Project, monkeypatch, capfd, tiny_verifier, stage, section, values
):
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)
    project.set("machine", completion_server=SERVER, processes=2)
    project.set(section, **values)
    monkeypatch.chdir(project.folder)
    with serve(tiny_verifier, Repeating), pytest.raises(Exception) as error:
        importlib.import_module(f"scripts.{stage}").main()
    assert error.typename == "InputError"
    printed = capfd.readouterr()
    assert CANARY not in "".join(traceback.format_exception(error.value))
    assert CANARY not in printed.out + printed.err
    written = set(files_with_a_canary(project.folder)) - {project.folder / "params.yaml"}
    assert written == set()
