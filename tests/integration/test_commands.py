"""The upstream tutorial's two commands, with small values."""

import csv
import json
import os
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

from eagle.config import TrainConfig, parse_command
from eagle.train import train
from tests.conftest import CANARIES, CANARY, ROOT, files_with_a_canary, run_command
from tests.tiny import make_conversations

FLOAT32 = [
    "--mixed-precision", "none", "--verifier-model-lm-head-dtype", "float32",
    "--verifier-model-dtype", "float32", "--eagle-dtype", "float32",
]  # fmt: skip


def tutorial_flags(verifier, data, cpdir, *more: str) -> list[str]:
    """All 26 flags of the tutorial, with small values; `more` come last and win."""
    config = cpdir.parent / "eagle_config.json"
    shipped = json.loads((ROOT / "resources/eagle_config.json").read_text())
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4}
    config.write_text(json.dumps(shipped | heads | {"hidden_size": 32, "intermediate_size": 48}))
    return [
        "eagle/train.py",
        "--micro-batch-size", "4", "--gradient-accumulation-steps", "2",
        "--num-warmup-steps", "2", "--num-training-steps", "131072", "--epochs", "2",
        "--clearml-project", "eagle", "--clearml-task", "1gpus-8microbs-2accum-16globalbs",
        "--verifier-model-path", str(verifier), "--dataset-path", str(data),
        "--eagle-config-path", str(config),
        "--learning-rate", "2e-4", "--maximum-model-length", "2048",
        "--noise-low", "-0.1", "--noise-high", "0.1", "--v-w", "1.0", "--p-w", "0.1",
        "--grad-clip", "0.5", "--b1", "0.9", "--b2", "0.95", "--cpdir", str(cpdir),
        "--save", "4", "--mixed-precision", "bf16",
        "--verifier-model-lm-head-dtype", "bfloat16", "--verifier-model-dtype", "bfloat16",
        "--eagle-dtype", "bfloat16", "--attn", "sdpa", *more,
    ]  # fmt: skip


def own_shape(verifier, folder) -> str:
    """An EAGLE config of the verifier's own shape, whose layer can begin as the verifier's last."""
    config = folder / "own_shape.json"
    whole = json.loads((verifier / "config.json").read_text())
    kept = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    config.write_text(json.dumps({name: whole[name] for name in kept}))
    return str(config)


def torchrun(processes: int = 1, agents: int = 1) -> list[str]:
    """The launcher of one agent; several meet at an endpoint and share the processes."""
    launcher = ["torchrun", f"--nnodes={agents}", f"--nproc_per_node={processes // agents}"]
    if agents > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            endpoint = f"127.0.0.1:{free.getsockname()[1]}"
        launcher += ["--rdzv-backend=c10d", f"--rdzv-endpoint={endpoint}", "--rdzv-id=test"]
    return launcher


def train_here(home: Path, command: list[str]) -> Path | None:
    """Run the training command in this process, with a home of its own and no tracker."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if "CLEARML" in name]:
            patch.delenv(name)
        patch.setenv("HOME", str(home))
        patch.setenv("EAGLE_CACHE", str(home / "cache"))
        return train(parse_command(TrainConfig, command[1:], command[0]))


def history(folder) -> list[dict]:
    return list(csv.DictReader((folder / "history.csv").open()))


@pytest.fixture(scope="module")
def trained(marked_verifier, messages_file, tmp_path_factory) -> SimpleNamespace:
    """One run of the training command under torchrun, with ClearML offline."""
    home = tmp_path_factory.mktemp("trained")
    flags = tutorial_flags(marked_verifier, messages_file, home / "cp")
    assert sum(flag.startswith("--") for flag in flags) == 26
    finished = run_command(
        home, *torchrun(), *flags,
        CLEARML_OFFLINE_MODE="1", CLEARML_CACHE_DIR=str(home / "clearml"),
        CLEARML_API_ACCESS_KEY=f"access-{CANARY}", **CANARIES,
    )  # fmt: skip
    (folder,) = (home / "cp").iterdir()
    return SimpleNamespace(
        home=home, folder=folder, stderr=finished.stderr, printed=finished.stdout + finished.stderr
    )


def test_the_training_command(trained, marked_verifier):
    for name in ("best", "last"):
        config = json.loads((trained.folder / name / "config.json").read_text())
        verifier = json.loads((marked_verifier / "config.json").read_text())
        for key in ("vocab_size", "max_position_embeddings", "rope_parameters"):
            assert config[key] == verifier[key]
        weights = load_file(trained.folder / name / "model.safetensors")
        assert not any(key.startswith("module.") for key in weights)
        assert str(weights["fc.weight"].dtype) == "torch.float32"
    rows = history(trained.folder)
    # 40 conversations, 5% held out: 38 in updates of 8, two epochs; all of it in the schedule
    assert [int(row["update"]) for row in rows] == list(range(10))
    assert float(rows[-1]["learning_rate"]) == pytest.approx(
        2e-4 * (131072 - 9) / (131072 - 2), rel=1e-3
    )
    assert "0% of the schedule used" in trained.stderr


def test_no_secret_is_in_the_run_the_tracker_or_what_is_printed(trained):
    assert CANARY not in trained.printed
    assert files_with_a_canary(trained.home) == []


def test_clearml_offline_holds_what_was_reported(trained):
    offline = trained.home / "clearml/offline"
    (session,) = [path for path in offline.iterdir() if path.is_dir()]
    events = [
        event
        for line in (session / "metrics.jsonl").read_text().splitlines()
        for event in json.loads(line)
        if event.get("type") == "training_stats_scalar"
    ]
    reported = {(event["metric"], event["variant"]): event["value"] for event in events}
    wanted = ["loss", "regression", "classification", "top1", "learning_rate", "gradient_norm",
              "masked_tokens_per_second"]  # fmt: skip
    assert {("train", name) for name in wanted} <= reported.keys()
    assert {("validation", "loss"), ("validation", "top1")} <= reported.keys()
    last = history(trained.folder)[-1]
    for name in ("loss", "regression", "top1", "gradient_norm"):
        assert reported["train", name] == pytest.approx(float(last[name]), rel=1e-4)
    task = json.loads((session / "task.json").read_text())
    assert task["name"] == "1gpus-8microbs-2accum-16globalbs"


def test_the_data_command_with_a_local_file(run, tmp_path):
    source = tmp_path / "sharegpt.json"
    nothing_said = {"id": "silent", "conversations": []}
    source.write_text(json.dumps([*make_conversations(20), nothing_said]))
    for size, count in ((["--frac", "1.0"], 20), (["--n", "5"], 5)):
        output = tmp_path / "out.jsonl"
        finished = run(
            "python3", "eagle/prepare_sharegpt_dataset.py", *size, "--output", output,
            "--source", source,
        )  # fmt: skip
        rows = [json.loads(line) for line in output.read_text().splitlines()]
        assert len(rows) == count
        assert set(rows[0]) == {"id", "messages"}
        assert [m["role"] for m in rows[0]["messages"]][:3] == ["system", "user", "assistant"]
        assert rows[0]["messages"][0]["content"].startswith("You are a helpful, respectful")
        assert f"{count} conversations, 1 rejected" in finished.stdout
        (rejected,) = (tmp_path / "out.rejected.jsonl").read_text().splitlines()
        assert json.loads(rejected) == {
            "file": "sharegpt.json", "row": 20, "reason": "no user turn with a reply"
        }  # fmt: skip
