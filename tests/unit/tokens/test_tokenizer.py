"""Every kind of tokenizer that a verifier comes with is loaded right, or named for what it is."""

import json
import sys

import pytest
from sentencepiece import SentencePieceProcessor

from eagle.errors import InputError
from eagle.tokens.tokenizer import load_tokenizer, stop_token_ids, tokenizer_hash
from tests.conftest import ROOT
from tests.tiny import make_sentencepiece, make_tokenizer

TEXTS = ["why", "The cat  sat\n on a mat.", "Grüße 🙂 你好", "USER: why ASSISTANT:", "17 + 4 = 21"]
TIKTOKEN = "IQ== 0\nIg== 1\n"


@pytest.fixture(scope="module")
def sentencepiece(tmp_path_factory):
    return make_sentencepiece(tmp_path_factory.mktemp("sentencepiece"))


def test_a_tokenizer_model_alone_gives_sentencepieces_tokens(sentencepiece):
    tokenizer = load_tokenizer(sentencepiece)
    assert tokenizer.is_fast
    model = SentencePieceProcessor(model_file=str(sentencepiece / "tokenizer.model"))
    for text in TEXTS:
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == model.encode(text)
    assert tokenizer.encode("</s>", add_special_tokens=False) == [model.eos_id()]


def test_the_hash_covers_the_files_of_which_a_tokenizer_is_made(sentencepiece, tmp_path):
    names = ("tokenizer.model", "tokenizer_config.json")
    hashes = {tokenizer_hash(sentencepiece)}
    for changed in names:
        for name in names:
            content = (sentencepiece / name).read_bytes() + b"\n" * (name == changed)
            (tmp_path / name).write_bytes(content)
        hashes.add(tokenizer_hash(tmp_path))
    assert len(hashes) == 3
    make_tokenizer().save_pretrained(tmp_path)  # tokenizer.json takes the place of the others
    with_json = tokenizer_hash(tmp_path)
    (tmp_path / "tokenizer.model").unlink()
    assert tokenizer_hash(tmp_path) == with_json


def test_a_tokenizer_that_transformers_takes_for_another_is_refused(sentencepiece, tmp_path):
    model = (sentencepiece / "tokenizer.model").read_bytes()
    (tmp_path / "tokenizer.model").write_bytes(model)
    with pytest.raises(InputError, match=r"where sentencepiece gives .*tokenizer_config.json"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, "has neither tokenizer.json nor tokenizer.model"),
        ({"tekken.json": "{}"}, "neither tokenizer.json nor tokenizer.model.*tekken.json and"),
        ({"tokenizer.model": TIKTOKEN}, "tokenizer.model: a tiktoken file, expected a model of"),
        ({"tokenizer.model": ""}, "tokenizer.model: damaged"),
        ({"tokenizer.model": "<html>404</html>"}, "tokenizer.model: damaged"),
        ({"tokenizer.json": '{"version": '}, "cannot be loaded: JSONDecodeError"),
        ({"tokenizer.json": '{"version": "1.0"}'}, "cannot be loaded: "),
        (
            {
                "tokenizer.json": "{}",
                "tokenizer_config.json": '{"tokenizer_class": "X", "auto_map": '
                '{"AutoTokenizer": ["x.X", null]}}',
            },
            "tokenizer_config.json: auto_map: the tokenizer is code of the model's own",
        ),
    ],
)
def test_what_is_no_tokenizer_is_named_in_one_line(tmp_path, files, expected):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=expected) as error:
        load_tokenizer(tmp_path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize("package", ["sentencepiece", "google.protobuf"])
def test_a_package_that_is_missing_is_named(sentencepiece, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    name = package.removeprefix("google.")
    with pytest.raises(InputError, match=f"the package {name}, which reads it, is not installed"):
        load_tokenizer(sentencepiece)
    assert f"\n{name} #" in (ROOT / "requirements.in").read_text()


@pytest.mark.parametrize(
    ("configs", "expected"),
    [
        ({"generation_config": {"eos_token_id": 2}, "config": {"eos_token_id": 3}}, [2]),
        ({"generation_config": {"eos_token_id": [4, 2]}}, [4, 2]),
        ({"generation_config": {}, "config": {"eos_token_id": 0}}, [0]),
        ({"generation_config": {"eos_token_id": None}, "config": {"eos_token_id": [0]}}, [0]),
        ({"config": {}}, "neither generation_config.json nor config.json has an eos_token_id"),
        ({"config": {"eos_token_id": "</s>"}}, "config.json: eos_token_id = '</s>': expected the"),
        ({"generation_config": {"eos_token_id": []}}, r"generation_config.json: .* = \[\]: expect"),
        ({"config": {"eos_token_id": [True]}}, r"config.json: eos_token_id = \[True\]: expected"),
    ],
)
def test_the_tokens_that_end_a_reply(tmp_path, configs, expected):
    for name, content in configs.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    if isinstance(expected, list):
        assert stop_token_ids(tmp_path) == expected
    else:
        with pytest.raises(InputError, match=expected):
            stop_token_ids(tmp_path)
