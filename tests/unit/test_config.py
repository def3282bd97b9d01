"""params.yaml and the page's flags are checked by one model; its messages are for people."""

import json
import re
from pathlib import Path

import pytest
import yaml

from eagle.config import (
    SCHEMA,
    Params,
    PrepareShareGptConfig,
    TrainConfig,
    flags_of,
    load_params,
    parse_command,
    schema,
)
from eagle.errors import InputError
from tests.conftest import ROOT

NEEDED = ["--verifier-model-path", "v", "--dataset-path", "d", "--cpdir", "c"]


def changed(tmp_path: Path, section: str, **values) -> Path:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params[section].update(values)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(params))
    return path


def test_the_shipped_parameters_are_valid_and_spell_out_every_key():
    shipped = yaml.safe_load((ROOT / "params.yaml").read_text())
    load_params(ROOT / "params.yaml")
    for section, field in Params.model_fields.items():
        assert set(shipped[section]) == set(field.annotation.model_fields), section


@pytest.mark.parametrize(
    ("section", "values", "expected"),
    [
        ("train", {"learning_rte": 1}, "train.learning_rte = 1: unknown key.*train.learning_rate"),
        ("train", {"epochs": "many"}, "train.epochs = 'many'.*integer"),
        ("train", {"b1": 1.5}, "train.b1 = 1.5.*less than 1"),
        ("train", {"attn": "flash"}, "train.attn = 'flash'.*'eager', 'sdpa'"),
        ("sharegpt", {"n": 5, "frac": 0.5}, "sharegpt: give exactly one of `n` and `frac`"),
        ("verifier", {"source": "hub:a/b", "revision": None}, "verifier: .*40-character commit"),
        ("sharegpt", {"source": "hub:a/b"}, "sharegpt.source = .*hub:OWNER/NAME/FILE"),
        ("sharegpt", {"source": "hub:a/b/c.json"}, "sharegpt: a hub data set needs `revision`"),
        ("train", {"noise_low": 0.5}, "train: noise_low 0.5 is above noise_high"),
        (
            "train",
            {"attn": "flash_attention_2", "verifier_model_dtype": "float32"},
            "train: attn flash_attention_2 computes in bfloat16 or float16",
        ),
    ],
)
def test_a_wrong_parameter_is_named_with_what_is_allowed(tmp_path, section, values, expected):
    with pytest.raises(InputError) as error:
        load_params(changed(tmp_path, section, **values))
    assert re.search(expected, str(error.value)), error.value
    assert len(str(error.value).splitlines()) == 1


def test_a_missing_key_broken_yaml_and_an_absent_file_are_told_apart(tmp_path):
    path = tmp_path / "params.yaml"
    for text, expected in (
        ("train: [", "not valid YAML"),
        ("just text", "expected sections"),
        ("train: {}", "verifier is missing"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=expected):
            load_params(path)
    with pytest.raises(InputError, match="no such file"):
        load_params(tmp_path / "absent.yaml")


def test_the_committed_schema_is_the_models():
    assert json.loads((ROOT / SCHEMA).read_text()) == schema()


def test_the_pages_flags_are_all_there_with_its_values():
    page = (
        "--micro-batch-size 8 --gradient-accumulation-steps 2 --num-warmup-steps 1024 "
        "--num-training-steps 131072 --epochs 4 --clearml-project eagle "
        "--clearml-task 1gpus-8microbs-2accum-16globalbs "
        "--verifier-model-path /mnt/resources/meta-llama2-7b-chat-hf "
        "--dataset-path /mnt/resources/sharegpt.jsonl "
        "--eagle-config-path /mnt/resources/eagle_config.json --learning-rate 2e-4 "
        "--maximum-model-length 2048 --noise-low -0.1 --noise-high 0.1 --v-w 1.0 --p-w 0.1 "
        "--grad-clip 0.5 --b1 0.9 --b2 0.95 --cpdir /mnt/resources/checkpoints --save 4096 "
        "--mixed-precision bf16 --verifier-model-lm-head-dtype bfloat16 "
        "--verifier-model-dtype bfloat16 --eagle-dtype bfloat16 --attn flash_attention_2"
    ).split()
    assert sum(flag.startswith("--") for flag in page) == 26
    command = parse_command(TrainConfig, page, "eagle/train.py")
    given = dict(zip(page[::2], page[1::2], strict=True))
    spoken = dict(flag.split("=") for flag in flags_of(command))
    for flag, value in given.items():
        if flag == "--learning-rate":
            assert float(spoken[flag]) == float(value)
        else:
            assert spoken[flag] == value


def test_flags_come_back_unchanged_and_the_environment_is_not_asked(monkeypatch):
    monkeypatch.setenv("EPOCHS", "9")
    command = parse_command(TrainConfig, [*NEEDED, "--noise-low=-5e-05"], "eagle/train.py")
    assert command.epochs == 4
    assert parse_command(TrainConfig, flags_of(command), "eagle/train.py") == command


@pytest.mark.parametrize("arguments", [["--n", "5"], ["--n=5"]])
def test_the_prepare_command_takes_n_as_the_page_spells_it(arguments):
    command = parse_command(PrepareShareGptConfig, [*arguments, "--output", "x"], "prepare")
    assert (command.n, command.frac, command.system_prompt) == (5, None, "llama2")


def test_a_wrong_flag_value_is_one_message():
    with pytest.raises(InputError, match="--save = '0'.*greater than or equal to 1"):
        parse_command(TrainConfig, [*NEEDED, "--save", "0"], "eagle/train.py")
    with pytest.raises(InputError, match="--cpdir is missing"):
        parse_command(TrainConfig, NEEDED[:4], "eagle/train.py")
