"""The benchmarks still import what they measure, and one of them runs on a tiny verifier."""

import importlib
import json
import shutil
import sys

import pytest

from tests.conftest import ROOT
from tests.tiny import make_messages, write_json_lines

NAMES = [*sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py")), "gpu.__main__"]


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_starts(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as end:
        importlib.import_module(f"benchmarks.{name}").main()
    assert end.value.code == 0
    assert "usage: " in capsys.readouterr().out


def test_replies_are_counted_alike_both_ways(tiny_verifier, tmp_path, monkeypatch):
    from benchmarks import regenerate_throughput

    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "resources/chat_templates", "resources/chat_templates")
    shutil.copytree(tiny_verifier, "resources/verifier")
    (tmp_path / "resources/sharegpt").mkdir()
    write_json_lines(tmp_path / regenerate_throughput.CONVERSATIONS, make_messages(5))
    monkeypatch.setattr(sys, "argv", ["", "--conversations", "3", "--new-tokens", "4"])
    regenerate_throughput.main()
    result = json.loads((tmp_path / regenerate_throughput.RESULT).read_text())
    for way in ("one_by_one_generate", "transformers_backend"):
        assert result[way]["tokens"] == 12
        assert result[way]["tokens_per_second"] > 0
    assert result["provenance"]["parameters"]["conversations"] == 3
