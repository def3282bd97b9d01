"""The verifier in memory: its features are what the head reads."""

import pytest
import torch

from eagle.errors import InputError
from eagle.tokens.tokenizer import load_tokenizer
from eagle.verifier.verifier import Verifier
from tests.families import make_family


@pytest.mark.parametrize("family", ["llama", "falcon", "gemma", "gemma3", "qwen3_moe", "gpt_oss"])
def test_the_head_makes_the_models_logits_of_the_features(family, tmp_path):
    folder = make_family(family, tmp_path / "verifier")
    verifier = Verifier.load(folder, torch.float32, torch.device("cpu"))
    token_ids = torch.tensor([[5, 9, 30, 41, 7], [11, 12, 13, 14, 15]])
    features = verifier.features(token_ids)
    assert features.shape == (2, 5, verifier.config.hidden_size)
    torch.testing.assert_close(features @ verifier.head.T, verifier.model(token_ids).logits)
    assert len(verifier.layers) == verifier.config.num_hidden_layers


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
    with pytest.raises(InputError, match=f"{tmp_path}: has neither tokenizer.json nor"):
        load_tokenizer(tmp_path)
