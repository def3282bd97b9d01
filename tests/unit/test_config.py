"""params.yaml and the tutorial's flags are checked by one model; its messages are for people."""

import datetime
import json
import re
from pathlib import Path

import pytest
import yaml

from eagle.config import (
    SCHEMA,
    Params,
    PrepareShareGptConfig,
    Recipe,
    ShareGptSelection,
    TrainConfig,
    flags_of,
    load_params,
    parse_command,
    schema,
)
from eagle.errors import InputError
from tests.conftest import ROOT

NEEDED = ["--verifier-model-path", "v", "--dataset-path", "d", "--cpdir", "c"]
SHIPPED = yaml.safe_load((ROOT / "params.yaml").read_text())


def written(tmp_path: Path, params: dict) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(params))
    return path


def changed(tmp_path: Path, section: str, **values) -> Path:
    return written(tmp_path, SHIPPED | {section: SHIPPED[section] | values})


def test_the_shipped_parameters_are_valid():
    load_params(ROOT / "params.yaml")


def test_no_section_has_a_default():
    for name, field in Params.model_fields.items():
        for key, inner in field.annotation.model_fields.items():
            assert inner.is_required(), f"{name}.{key}"


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
        ("verifier", {"source": "path:a", "revision": "1"}, "verifier: .*set `revision` to null"),
        ("sharegpt", {"source": "hub:a/b/c.json"}, "sharegpt: a hub data set needs `revision`"),
        ("sharegpt", {"source": "hub:a/b/../../c.json"}, "sharegpt.source = .*hub:OWNER/NAME/FILE"),
        ("sharegpt", {"source": "hub:a/b/c\\d.json"}, "sharegpt.source = .*hub:OWNER/NAME/FILE"),
        ("verifier", {"source": "hub:../b"}, "verifier.source = 'hub:../b': .*hub:OWNER/NAME"),
        ("verifier", {"revision": 0.1}, "verifier.revision = 0.1: .*string; put it in quotes"),
        ("evaluate", {"draft_length": 10**9}, "draft_length = 1000000000: expected auto, or a num"),
        ("evaluate", {"static_tree": [[0], [10**9]]}, "static_tree = .*expected auto, mc_sim_7b_"),
        ("evaluate", {"temperature": 1e-30}, "evaluate.temperature = 1e-30: expected 0 .greedy., "),
        ("train", {"noise_low": 0.5}, "train: noise_low 0.5 is above noise_high"),
        ("template", {"date": "today"}, 'template.date = .*expected a day such as "2024-07-26"'),
        ("template", {"date": datetime.date(2024, 7, 26)}, 'such as "2024-07-26", in quotes'),
        ("template", {"date": "26 Jul 2024"}, 'expected a day such as "2024-07-26"'),
        ("template", {"date": "2024-02-30"}, 'expected a day such as "2024-07-26"'),
        ("sharegpt", {"roles": {"tool": "drop"}}, "sharegpt.roles.tool = 'drop': .*'reject'"),
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


def test_one_line_names_all_missing_keys_and_what_to_do(tmp_path):
    """As a params.yaml from before has them: the code filled in what it left out."""
    params = {section: dict(values) for section, values in SHIPPED.items()}
    del params["train"]["attn"], params["sharegpt"]["system_turns"], params["machine"]
    with pytest.raises(InputError) as error:
        load_params(written(tmp_path, params))
    (line,) = str(error.value).splitlines()
    assert "missing: sharegpt.system_turns, train.attn, machine; params.yaml states every" in line
    assert "add these lines" in line and "CHANGELOG.md" in line
    params["train"]["learning_rte"] = 1
    with pytest.raises(InputError) as error:
        load_params(written(tmp_path, params))
    assert len(str(error.value).splitlines()) == 2


def numbers(properties: dict) -> dict[str, list[dict]]:
    """The schemas of numbers by the field in which they are allowed, of one section or command."""

    def found(schema) -> list[dict]:
        if isinstance(schema, list):
            return [number for inner in schema for number in found(inner)]
        if not isinstance(schema, dict):
            return []
        own = [schema] if schema.get("type") in ("integer", "number") else []
        return own + [number for inner in schema.values() for number in found(inner)]

    return {name: found(field) for name, field in properties.items() if found(field)}


SECTION_NUMBERS = {
    f"{section}.{name}": schemas
    for section, field in Params.model_fields.items()
    for name, schemas in numbers(field.annotation.model_json_schema()["properties"]).items()
}
COMMAND_NUMBERS = {
    command: numbers(command.model_json_schema()["properties"])
    for command in (TrainConfig, PrepareShareGptConfig)
}


def test_every_number_has_a_lower_and_an_upper_bound():
    assert len(SECTION_NUMBERS) > 50
    for fields in (SECTION_NUMBERS, *COMMAND_NUMBERS.values()):
        for name, schemas in fields.items():
            for bounds in schemas:
                assert {"minimum", "exclusiveMinimum"} & bounds.keys(), name
                assert {"maximum", "exclusiveMaximum"} & bounds.keys(), name


@pytest.mark.parametrize(
    "value", ["true", ".nan", ".inf", "-.inf", "1e400", "1" + "0" * 30, "-1" + "0" * 30, "'1'"]
)
def test_what_is_no_number_or_far_out_is_refused_for_every_number(tmp_path, value):
    """All of them in one file: one line for each, which names it and what was found."""
    params = {section: dict(values) for section, values in SHIPPED.items()}
    for key in SECTION_NUMBERS:
        section, name = key.split(".")
        params[section][name] = "the value"
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(params).replace("the value", value))
    with pytest.raises(InputError) as error:
        load_params(path)
    lines = str(error.value).splitlines()
    assert len(lines) == len(SECTION_NUMBERS)
    for line, key in zip(sorted(lines), sorted(SECTION_NUMBERS), strict=True):
        assert re.match(rf"{path}: {key} = \S.*: (Input should be|expected) ", line), line


@pytest.mark.parametrize("value", ["true", "nan", "inf", "-inf", "1" + "0" * 30, "-1" + "0" * 30])
@pytest.mark.parametrize("command", COMMAND_NUMBERS)
def test_the_same_for_every_flag(command, value):
    flags = {"--" + name.replace("_", "-"): name for name in COMMAND_NUMBERS[command]}
    others = ["--output", "x"] if command is PrepareShareGptConfig else NEEDED
    with pytest.raises(InputError) as error:
        parse_command(command, [*others, *(f"{flag}={value}" for flag in flags)], "command")
    named = {line.split(" ")[1] for line in str(error.value).splitlines()}
    assert named == set(flags)


def test_a_number_that_yaml_reads_as_text_is_told_how_to_write_it(tmp_path):
    path = changed(tmp_path, "train", learning_rate="the value")
    path.write_text(path.read_text().replace("the value", "1e-4"))
    expected = r"train.learning_rate = '1e-4': .*YAML reads this as text: .* with a dot: 1.0e-4$"
    with pytest.raises(InputError, match=expected):
        load_params(path)


BOMB = "a: &a [1]\n" + "".join(
    f"b{n}: &b{n} [*{'a' if n == 0 else f'b{n - 1}'}]\n" for n in range(9)
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train: [", "not valid YAML"),
        ("just text", "expected sections .* found 'just text'"),
        ("train:\n  seed: 0\n  b1: 0.9\n  seed: 1", "the key seed stands twice, first in line 2;"),
        ("train: {}\ntrain: {}", "the key train stands twice, first in line 1; remove one"),
        (BOMB, r"\*a repeats a list or a mapping; write it out .*line 2"),
        ("a: &a\n  <<: *a", "repeats a list or a mapping"),
        ("[" * 5000, "nested too deeply"),
        ("seed: " + "9" * 5000, "not valid YAML: Exceeds the limit"),
        ("train: 0x" + "f" * 5000, "train = a number of thousands of digits: Input should be"),
        ("date: 2024-13-45", "not valid YAML: month must be in 1..12"),
        ("a: !!timestamp x", "not valid YAML"),
        ("a: !!python/object/apply:os.getcwd []", "not valid YAML: could not determine a constr"),
        ("a: \x00", "not valid YAML: unacceptable character"),
        ("1: 2\n[3]: 4", "1 = 2: .*nearest known key|unhashable"),
        ("#" * 2**20 + "#", "larger than 1,048,576 bytes"),
    ],
)
def test_what_yaml_allows_and_nobody_means_is_one_message(tmp_path, text, expected):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=expected) as error:
        load_params(path)
    assert len(str(error.value)) < 3000


def test_an_alias_of_a_scalar_is_what_it_stands_for(tmp_path):
    path = tmp_path / "params.yaml"
    shipped = (ROOT / "params.yaml").read_text()
    path.write_text(
        shipped.replace("shuffle_seed: 0", "shuffle_seed: &s 7").replace("seed: 0", "seed: *s")
    )
    assert load_params(path).evaluate.seed == 7


def test_an_absent_file_says_where_to_run(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_params(tmp_path / "absent.yaml")


def test_an_automatic_batch_is_refused_before_anything_runs_where_it_may_not_be_divisible(tmp_path):
    for values in ({"processes": 4}, {"gradient_accumulation_steps": 2}):
        train = SHIPPED["train"] | {"global_batch_size": "auto"}
        params = SHIPPED | {"train": train, "machine": SHIPPED["machine"] | values}
        with pytest.raises(InputError, match="auto may become 1.*state a number, 16 is usual"):
            load_params(written(tmp_path, params))


def test_the_committed_schema_is_the_models():
    assert json.loads((ROOT / SCHEMA).read_text()) == schema()


def test_the_tutorials_flags_are_all_there_with_its_values():
    tutorial = (
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
    assert sum(flag.startswith("--") for flag in tutorial) == 26
    command = parse_command(TrainConfig, tutorial, "eagle/train.py")
    given = dict(zip(tutorial[::2], tutorial[1::2], strict=True))
    back = dict(flag.split("=") for flag in flags_of(command))
    for flag, value in given.items():
        if flag == "--learning-rate":
            assert float(back[flag]) == float(value)
        else:
            assert back[flag] == value


def test_the_docs_list_where_the_commands_defaults_differ_from_params_yaml():
    train, prepare = TrainConfig.model_fields, PrepareShareGptConfig.model_fields
    batch = train["micro_batch_size"].default * train["gradient_accumulation_steps"].default
    pairs = {
        ("--micro-batch-size x --gradient-accumulation-steps", "train.global_batch_size"): batch,
        ("--num-warmup-steps", "train.warmup_updates"): train["num_warmup_steps"].default,
        ("--num-training-steps", "train.max_updates"): train["num_training_steps"].default,
        ("--save", "machine.save_updates"): train["save"].default,
        ("--save-minutes", "machine.save_minutes"): train["save_minutes"].default,
        ("--template-date", "template.date"): train["template_date"].default,
    }
    for section, names, fields in (
        ("train", Recipe.model_fields, train),
        ("tokens", ["maximum_model_length"], train),
        ("machine", ["verifier_sharding", "peak_tflops", "progress_seconds"], train),
        ("sharegpt", [*ShareGptSelection.model_fields, "source", "revision"], prepare),
    ):
        for name in names:
            pairs["--" + name.replace("_", "-"), f"{section}.{name}"] = fields[name].default
    differ = set()
    for (flag, key), default in pairs.items():
        section, name = key.split(".")
        if default != SHIPPED[section][name]:
            differ.add((flag, json.dumps(default), key, json.dumps(SHIPPED[section][name])))
    table = (ROOT / "docs/tutorial_defaults.md").read_text().splitlines()
    rows = [line.replace("`", "").split(" | ") for line in table if line.startswith("| `--")]
    listed = {(flag[2:], default, key, value) for flag, default, key, value, _why in rows}
    assert listed == {tuple(text.strip('"') for text in row) for row in differ}


def test_flags_come_back_unchanged_and_the_environment_is_not_asked(monkeypatch):
    monkeypatch.setenv("EPOCHS", "9")
    command = parse_command(TrainConfig, [*NEEDED, "--noise-low=-5e-05"], "eagle/train.py")
    assert command.epochs == 4
    assert parse_command(TrainConfig, flags_of(command), "eagle/train.py") == command


@pytest.mark.parametrize("arguments", [["--n", "5"], ["--n=5"]])
def test_the_prepare_command_takes_n_as_the_tutorial_spells_it(arguments):
    command = parse_command(PrepareShareGptConfig, [*arguments, "--output", "x"], "prepare")
    assert (command.n, command.frac, command.system_prompt) == (5, None, "llama2")


def test_a_wrong_flag_value_is_one_message():
    with pytest.raises(InputError, match="--save = '0'.*greater than or equal to 1"):
        parse_command(TrainConfig, [*NEEDED, "--save", "0"], "eagle/train.py")
    with pytest.raises(InputError, match="missing: --cpdir; give it"):
        parse_command(TrainConfig, NEEDED[:4], "eagle/train.py")
    with pytest.raises(InputError, match="train: noise_low 0.5 is above noise_high 0.1"):
        parse_command(TrainConfig, [*NEEDED, "--noise-low", "0.5"], "train")


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ([{"source": "a", "revision": None, "weight": 2}], "weight = 2: .* less than or equal"),
        ([{"source": "a", "revision": None, "weight": 0}], "weight = 0: .* greater than 0"),
        ([{"source": "a", "revision": None}], "missing: sharegpt.source.0.weight"),
        ([{"source": "hub:a/b/c", "revision": None, "weight": 1}], "data set needs `revision`"),
        (
            [{"source": "a", "revision": None, "weight": weight} for weight in (1, 0.5)],
            "source a stands twice in the list",
        ),
        ([], "source.* at least 1 item"),
    ],
)  # fmt: skip
def test_a_list_of_sources_is_checked(tmp_path, sources, expected):
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["sharegpt"]["source"] = sources
    with pytest.raises(InputError, match=expected):
        load_params(written(tmp_path, params))
