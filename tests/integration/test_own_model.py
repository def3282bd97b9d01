"""An engineer's own model and data, from the shipped params.yaml to the card of the draft."""

import importlib
import json
import random
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

from tests.integration.conftest import Project, make_miniature
from tests.tiny import CHATML, WORDS, make_tokenizer, write_json_lines

ROWS = 120


def make_qwen2(folder: Path) -> Path:
    """A random Qwen2 with a card and an unmarked template, as a company keeps its fine-tune."""
    tokenizer = make_tokenizer(CHATML)
    torch.manual_seed(3)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
        eos_token_id=tokenizer.eos_token_id, bos_token_id=None, initializer_range=0.3,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    card = "---\nlicense: other\nlicense_name: our-terms\nbase_model: Qwen/Qwen2\n---\n# Bird 1\n"
    (folder / "README.md").write_text(card)
    return folder


def make_rows() -> list[dict]:
    """OpenAI messages: some with a system prompt, one with a tool's answer, one twice, one cut."""
    generator = random.Random(5)

    def text() -> str:
        return " ".join(generator.choices(WORDS, k=generator.randint(4, 10)))

    rows = []
    for number in range(ROWS - 1):
        messages = [
            {"role": role, "content": text()}
            for _ in range(generator.randint(1, 2))
            for role in ("user", "assistant")
        ]
        system = [{"role": "system", "content": text()}] if number % 3 == 0 else []
        rows.append({"id": number, "messages": system + messages, "topic": "birds"})
    rows[7]["messages"].insert(-1, {"role": "tool", "content": "42"})
    rows[9]["messages"][-1]["finish_reason"] = "length"
    return [*rows, rows[11]]


@pytest.fixture
def folder(tmp_path) -> Path:
    """A checkout with the shipped params.yaml, what an engineer must set, and sizes for a test."""
    make_miniature(tmp_path / "project")
    project = Project(tmp_path / "project", None)
    own = project.folder / "resources/conversations/own"
    own.mkdir()
    write_json_lines(own / "rows.jsonl", make_rows())
    project.set("verifier", source=f"path:{make_qwen2(tmp_path / 'bird-1')}")
    project.set("sharegpt", source="resources/conversations/own", validation_fraction=0.06)
    project.set("template", file=None)
    project.set("train", global_batch_size="auto", warmup_updates=20, validation_updates=None)
    project.set("evaluate", questions="auto", maximum_new_tokens=12, static_tree="auto")
    return project.folder


def read(name: str) -> dict:
    return json.loads(Path(name).read_text())


def test_from_own_messages_to_a_card_every_row_is_accounted_for(folder, monkeypatch, capfd, run):
    """All stages in order; without DVC and, but for training, in this process: that is fast."""
    monkeypatch.chdir(folder)
    for stage in yaml.safe_load(Path("dvc.yaml").read_text())["stages"]:
        if stage == "train":
            trained = run(sys.executable, "-m", "scripts.train", cwd=folder)
            print(trained.stdout, trained.stderr)
        else:
            importlib.import_module(f"scripts.{stage}").main()
    output = capfd.readouterr().out

    counts = read("resources/sharegpt/statistics.json")
    assert counts["read"] == ROWS
    assert counts["rejected"] == {"exact duplicate": 1, "turn of role 'tool'": 1}
    assert counts["conversations"] == {"train": 111, "validation": 7}
    assert counts["not_selected"] == 0
    assert counts["fields_not_read"] == {"topic": 118}
    tokens = read("resources/tokens/manifest.json")
    assert tokens["train"]["documents"] + tokens["validation"]["documents"] == 118
    assert tokens["train"]["unfinished_replies"] + tokens["validation"]["unfinished_replies"] == 1
    assert "1 replies that were cut at a limit do not teach an end" in output

    assert "global_batch_size auto is 1" in output
    assert "initialization auto is least_squares" in output
    trained = read("results/train/provenance.json")["parameters"]
    assert trained["micro_batch_size"] * trained["gradient_accumulation_steps"] == 1
    assert trained["softmax_vocabulary"] == 8192
    assert len(pd.read_csv("results/train/history.csv")) == 2 * 111

    assert read("results/evaluate/provenance.json")["parameters"]["questions"] == 2
    details = read("results/evaluate/details.json")
    assert read("results/evaluate/metrics.json")["lossless"]
    assert details["decoder"]["kind"] == "static_tree"

    chain = details["engine_chain"]
    assert chain["from"] == "forecast"
    for layout in ("official", "sglang", "vllm"):
        text = Path(f"models/export/{layout}/README.md").read_text()
        assert f"A chain of {chain['length']} drafted tokens is the fastest one" in text
        assert f"τ is {chain['tau']:.2f} there" in text
        assert "EAGLE-1 draft for Bird 1" in text
        assert str(folder.parent) not in text
        metadata = ModelCard(text).data
        assert (metadata.license, metadata.license_name) == ("other", "our-terms")
        assert metadata.base_model is None  # not its parent's
    serving = Path("models/export/vllm/README.md").read_text()
    assert f'"num_speculative_tokens": {chain["length"]}' in serving
