"""The documents of a run, from JSON lines and from the stage's folder."""

import json

import pytest
import torch

from eagle.errors import InputError
from eagle.tokens.tokenizer import chat_template_hash, load_tokenizer, tokenizer_hash
from eagle.training.documents import check_vocabulary, load_documents


@pytest.fixture
def load(marked_verifier, make_config):
    def _load(path, **values):
        return load_documents(
            make_config(verifier_model_path=marked_verifier, dataset_path=path, **values)
        )

    return _load


def test_five_percent_of_the_conversations_are_held_out(load, messages_file):
    documents = load(messages_file)
    assert (len(documents.train), len(documents.validation)) == (38, 2)


def test_a_folder_has_the_documents_that_were_saved_cut_at_the_length(
    load, marked_verifier, messages_file, tmp_path
):
    lines = load(messages_file)
    lines.train.save(tmp_path / "train.safetensors")
    lines.validation.save(tmp_path / "validation.safetensors")
    manifest = {
        "tokenizer_sha256": tokenizer_hash(marked_verifier),
        "verifiers_template_sha256": chat_template_hash(load_tokenizer(marked_verifier)),
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    documents = load(tmp_path)
    assert torch.equal(documents.train.token_ids, lines.train.token_ids)
    assert torch.equal(documents.validation.loss_mask, lines.validation.loss_mask)
    assert documents.sha256 != lines.sha256
    cut = load(tmp_path, maximum_model_length=20)
    assert int(cut.train.bounds.diff().max()) == 20
    for key, what in (
        ("tokenizer_sha256", "tokenizer"), ("verifiers_template_sha256", "chat template")
    ):  # fmt: skip
        (tmp_path / "manifest.json").write_text(json.dumps(manifest | {key: "0" * 64}))
        with pytest.raises(InputError, match=f"was made with another {what} .000000000000. than"):
            load(tmp_path)


def test_tokens_beyond_the_verifiers_vocabulary_are_refused(tokens, make_config):
    largest = int(tokens.token_ids.max())
    check_vocabulary(make_config(), tokens, largest + 1)
    with pytest.raises(InputError, match=f"has token {largest}, .* ends at {largest - 1}"):
        check_vocabulary(make_config(), tokens, largest)
