"""Bad input ends in one clear message, a non-zero exit and nothing half-written.

What the user sees of it is tested in processes once for stages, once for the tutorial's command and
once under torchrun. Which input has which message is tested in this process.
"""

import importlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from eagle.decoding.speculative import vanilla
from eagle.errors import InputError
from eagle.template.template import encode_prompt
from eagle.tokens.token_set import TokenSet
from eagle.tokens.tokenizer import load_tokenizer
from eagle.verifier.verifier import Verifier
from tests.conftest import CANARIES, CANARY, ROOT
from tests.integration.conftest import Project, executed
from tests.integration.test_commands import train_here, tutorial_flags
from tests.tiny import (
    CHATML,
    MARKED,
    WORDS,
    accept,
    make_conversations,
    make_verifier,
    write_json_lines,
)


def only_message(output: str) -> str:
    """The one line that begins with `error:`; there is no traceback beside it."""
    assert "Traceback" not in output, output
    (message,) = [line for line in output.splitlines() if line.startswith("error: ")]
    return message


@pytest.fixture
def stage(project: Project, monkeypatch) -> Callable[[str], None]:
    """Runs a stage's script in this process, in the project."""
    monkeypatch.chdir(project.folder)
    return lambda name: importlib.import_module(f"scripts.{name}").main()


def half_written(project: Project) -> list[Path]:
    folders = [project.folder / name for name in ("resources", "results", "models")]
    return [path for folder in folders for path in folder.glob(".*.partial")]


def test_a_stage_prints_one_line_and_goes_on_once_its_input_is_mended(project: Project):
    path = project.folder / "resources/conversations/tiny.json"
    content = path.read_text()
    path.unlink()
    output = project("dvc", "repro", "prepare_sharegpt", code=1)
    assert "resources/conversations: the folder holds no .json file" in only_message(output)
    assert not half_written(project)
    path.write_text(content)
    assert executed(project("dvc", "repro", "tokenize_dataset")) == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "tiny.json: the file is empty"),
        ("<html></html>", "tiny.json: not valid JSON at line 1, column 1"),
        (json.dumps(make_conversations(9))[:-40], "tiny.json: not valid JSON.*cut off"),
        ('[{"text": "x"}]', r"schema: found keys \['text'\], expected .*tiny.json, row 0"),
        (
            json.dumps([{"id": 1, "conversations": [{"from": "alien", "value": "hello"}]}]),
            r"unknown role 'alien', which sharegpt.roles does not name: turn 0 .tiny.json, row 0",
        ),
        (
            json.dumps([{"id": 1, "conversations": [{"from": "human", "value": "hi"}]}]),
            "no usable conversation; all 1 rows rejected, 1 because: no user turn with a reply",
        ),
    ],
)  # fmt: skip
def test_conversations_that_cannot_be_used(project: Project, stage, content, expected):
    (project.folder / "resources/conversations/tiny.json").write_text(content)
    with pytest.raises(InputError, match=expected):
        stage("prepare_sharegpt")
    assert not half_written(project)


@pytest.mark.parametrize(
    ("section", "values", "name", "expected"),
    [
        ("verifier", {"source": "path:docker"}, "download_model", "not a model in transformers"),
        ("verifier", {"source": "package:llm-absent", "revision": "1"}, "download_model",
         "the package is not installed; run"),
        ("template", {"file": "absent.jinja"}, "validate_template", "there is no such file"),
        ("tokens", {"maximum_model_length": 3}, "tokenize_dataset",
         "has an assistant token within 3 tokens: nothing to learn from"),
        ("train", {"learning_rte": 1}, "train", "train.learning_rte = 1: unknown key"),
        ("train", {"global_batch_size": 3}, "train", "cannot be divided among 2 processes"),
        ("evaluate", {"temperature": -0.1}, "evaluate",
         "evaluate.temperature = -0.1: Input should be greater than or equal to 0"),
        ("evaluate", {"static_tree": [[0], [1, 0]]}, "evaluate",
         "node [1, 0] is an orphan: its parent [1] is not in the tree"),
        ("evaluate", {"bench": "resources/bench/absent.jsonl"}, "evaluate", "no such file"),
    ],
)  # fmt: skip
def test_parameters_that_cannot_be_used(project: Project, stage, section, values, name, expected):
    project.set("machine", processes=2)
    project.set(section, **values)
    with pytest.raises(InputError) as error:
        stage(name)
    assert expected in str(error.value)
    assert not half_written(project)


def test_a_date_is_a_parameter_and_no_document_is_longer_than_the_context(
    project: Project, stage, capsys
):
    writes_date = "{{ strftime_now('%d %b %Y') }}\n"
    for name, text in (("verifier/chat_template", CHATML), ("chat_templates/tiny", MARKED)):
        path = project.folder / f"resources/{name}.jinja"
        path.unlink()
        path.write_text(writes_date + text)
    accept(project.folder / "resources/verifier")
    with pytest.raises(InputError, match="writes today's date .*set template.date"):
        stage("validate_template")
    project.set("template", date="2024-07-26")
    project.set("tokens", maximum_model_length=300)
    for name in ("train", "validation"):
        path = project.folder / f"resources/replies/{name}.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        rows[0]["messages"][-1]["content"] *= 99
        path.unlink()
        write_json_lines(path, rows)
    accept(project.folder / "resources/replies")
    stage("validate_template")
    stage("tokenize_dataset")
    note = "tokens.maximum_model_length is above the verifier's context of 256; 2 documents cut at"
    assert note in capsys.readouterr().out
    tokens = TokenSet.load(project.folder / "resources/tokens/train.safetensors")
    assert int(tokens.bounds.diff().max()) == 256
    text = load_tokenizer(project.folder / "resources/verifier").decode(tokens.token_ids[:40])
    assert text.startswith("26 Jul 2024\n")


def test_a_verifier_that_ends_every_reply_at_once(project: Project, stage):
    folder = project.folder / "resources/verifier"
    verifier = Verifier.load(folder, torch.float32, torch.device("cpu"))
    tokenizer = load_tokenizer(folder)
    questions = [{"question_id": i, "category": "c", "turns": [WORDS[i]]} for i in (1, 2)]
    write_json_lines(project.folder / "resources/bench/tiny.jsonl", questions)
    firsts = [
        vanilla(verifier, encode_prompt(tokenizer, MARKED, [
            {"role": "user", "content": question["turns"][0]}]), 1).token_ids[0]
        for question in questions
    ]  # fmt: skip
    settings = folder / "generation_config.json"
    content = json.loads(settings.read_text()) | {"eos_token_id": firsts}
    settings.unlink()  # DVC's outputs cannot be written to
    settings.write_text(json.dumps(content))
    accept(folder)
    expected = "tiny.jsonl: the verifier ended every reply to the first 2 prompts with its first "
    with pytest.raises(InputError, match=expected):
        stage("evaluate")


def test_a_failing_worker_shows_its_own_message_and_leaves_the_draft_alone(project: Project):
    weights = project.folder / "models/draft/best/model.safetensors"
    before = weights.read_bytes()
    project.set("train", eagle_config_path=str(ROOT / "resources/eagle_config.json"))
    project.set("machine", processes=2)
    output = project("python", "-m", "scripts.train", code=1, **CANARIES)
    assert "error: " in output and CANARY not in output
    assert "hidden_size is 4096, the verifier's is 32" in output
    assert "training ended with exit code" in output
    assert weights.read_bytes() == before


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--verifier-model-path", "docker"], "docker: found no config.json"),
        (["--save", "0"], "--save = '0'.*greater than or equal to 1"),
        (["--cpdir", "/proc/nowhere"], "--cpdir: /proc/nowhere.* cannot be written"),
        (["--num-warmup-steps", "500", "--num-training-steps", "100"], "warm-up of 500 updates"),
        (["--attn", "flash_attention_2"], "flash_attention_2"),
        (["--learning-rate", "1e30"], "--learning-rate = '1e30'.*less than or equal to 1"),
    ],
)
def test_flags_that_cannot_be_used(marked_verifier, messages_file, tmp_path, more, expected):
    with pytest.raises(InputError, match=expected):
        train_here(tmp_path, tutorial_flags(marked_verifier, messages_file, tmp_path / "cp", *more))


def test_the_tutorials_command_prints_one_line(run, marked_verifier, tmp_path):
    flags = tutorial_flags(marked_verifier, "absent.jsonl", tmp_path / "cp")
    finished = run("python", *flags, code=1)
    assert finished.returncode == 1
    assert "absent.jsonl: there is no such file" in only_message(finished.stderr)
    assert finished.stdout == ""


def test_data_of_another_tokenizer_or_template_or_without_one_is_refused(
    reproduced, tiny_verifier, marked_verifier, messages_file, tmp_path
):
    other = make_verifier(tmp_path / "other")
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["added_tokens"][0]["lstrip"] = True
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    bare = make_verifier(tmp_path / "bare", template=None)
    tokens = reproduced / "resources/tokens"
    empty = write_json_lines(tmp_path / "empty.jsonl", [{"id": 0, "messages": []}])
    for verifier, data, expected in (
        (other, tokens, "was made with another tokenizer"),
        (marked_verifier, tokens, "was made with another chat template"),
        (bare, messages_file, "the verifier has no chat template of its own"),
        (
            tiny_verifier,
            empty,
            "empty.jsonl: no usable conversation; 1 because: no user turn with a reply",
        ),
    ):
        with pytest.raises(InputError, match=expected):
            train_here(tmp_path, tutorial_flags(verifier, data, tmp_path / "cp"))
