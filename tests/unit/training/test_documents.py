"""The documents of a run, from JSON lines and from the stage's folder."""

import json

import pytest
import torch

from eagle.errors import InputError
from eagle.tokens.tokenizer import chat_template_hash, load_tokenizer, tokenizer_hash
from eagle.training.documents import check_vocabulary, load_documents
from tests.tiny import MARKED, make_messages, make_verifier, write_json_lines


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


def test_no_document_is_longer_than_the_verifiers_context(make_config, tmp_path, capsys):
    verifier = make_verifier(tmp_path / "verifier", MARKED, max_position_embeddings=60)
    path = write_json_lines(tmp_path / "rows.jsonl", make_messages(40))
    config = make_config(verifier_model_path=verifier, dataset_path=path, maximum_model_length=200)
    documents = load_documents(config)
    assert int(documents.train.bounds.diff().max()) == 60
    said = capsys.readouterr().out
    assert (
        "cut at 60 tokens, the verifier's context, which is below --maximum-model-length = 200"
        in said
    )
    assert "documents cut at 60 tokens" in said
    shorter = load_documents(config.model_copy(update={"maximum_model_length": 40}))
    assert int(shorter.train.bounds.diff().max()) == 40
    assert "the verifier's context" not in capsys.readouterr().out


def test_tokens_of_a_folder_are_cut_at_the_verifiers_context_too(load, tmp_path, make_config):
    longer = make_verifier(tmp_path / "longer", MARKED)
    shorter = make_verifier(tmp_path / "shorter", MARKED, max_position_embeddings=60)
    lines = load(write_json_lines(tmp_path / "rows.jsonl", make_messages(40)))
    (tmp_path / "tokens").mkdir()
    lines.train.save(tmp_path / "tokens/train.safetensors")
    lines.validation.save(tmp_path / "tokens/validation.safetensors")
    manifest = {
        "tokenizer_sha256": tokenizer_hash(longer),
        "verifiers_template_sha256": chat_template_hash(load_tokenizer(longer)),
    }
    (tmp_path / "tokens/manifest.json").write_text(json.dumps(manifest))
    for verifier, expected in ((longer, int(lines.train.bounds.diff().max())), (shorter, 60)):
        config = make_config(verifier_model_path=verifier, dataset_path=tmp_path / "tokens")
        assert int(load_documents(config).train.bounds.diff().max()) == expected


def test_the_date_that_a_template_writes_is_in_the_tokens_and_their_hash(make_config, tmp_path):
    writes_date = "<|im_start|>system\n{{ strftime_now('%d %b %Y') }}<|im_end|>\n" + MARKED
    verifier = make_verifier(tmp_path / "verifier", writes_date)
    path = write_json_lines(tmp_path / "rows.jsonl", make_messages(20))
    config = make_config(verifier_model_path=verifier, dataset_path=path)
    documents = load_documents(config)
    text = load_tokenizer(verifier).decode(documents.train.token_ids[documents.train.span(0)])
    assert "26 Jul 2024" in text
    other = load_documents(config.model_copy(update={"template_date": "2025-01-31"}))
    assert other.sha256 != documents.sha256 == load_documents(config).sha256


def test_tokens_beyond_the_verifiers_vocabulary_are_refused(tokens, make_config):
    largest = int(tokens.token_ids.max())
    check_vocabulary(make_config(), tokens, largest + 1)
    with pytest.raises(InputError, match=f"has token {largest}, .* ends at {largest - 1}"):
        check_vocabulary(make_config(), tokens, largest)


def test_a_model_that_cannot_be_a_verifier_is_refused_here_too(make_config, tmp_path):
    from transformers import BloomConfig, BloomForCausalLM

    config = BloomConfig(vocab_size=64, hidden_size=16, n_layer=1, n_head=2)
    BloomForCausalLM(config).save_pretrained(tmp_path / "bloom")
    with pytest.raises(InputError, match="model_type bloom: no rotary embedding"):
        load_documents(make_config(verifier_model_path=tmp_path / "bloom"))
