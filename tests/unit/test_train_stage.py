"""The size of an update where params.yaml leaves it to the data."""

import pytest

from eagle.config import load_params
from eagle.errors import InputError
from eagle.files import write_json
from scripts.train import global_batch_size, train_config
from tests.conftest import ROOT
from tests.tiny import settings


@pytest.mark.parametrize(
    ("conversations", "batch"),
    [(119, 1), (726, 1), (999, 1), (1_000, 2), (5_000, 8), (8_000, 16), (68_000, 16)],
)
def test_more_conversations_make_larger_updates(tmp_path, monkeypatch, conversations, batch):
    monkeypatch.chdir(tmp_path)
    write_json(tmp_path / "resources/tokens/manifest.json", {"train": {"documents": conversations}})
    assert global_batch_size(settings("train", global_batch_size="auto")) == batch
    assert global_batch_size(settings("train", global_batch_size=3)) == 3
    config = train_config(load_params(ROOT / "params.yaml"))
    assert config.micro_batch_size * config.gradient_accumulation_steps == batch


def test_without_tokens_it_is_said_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="resources/tokens/manifest.json: there is no such file"):
        global_batch_size(settings("train", global_batch_size="auto"))
