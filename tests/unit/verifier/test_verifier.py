"""The verifier in memory: its features are what the head reads."""

import re

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


def test_float32_is_float32_wherever_a_verifier_is(tiny_verifier):
    """TF32 has ten bits where float32 has 23; it is switched off for the whole process."""
    torch.set_float32_matmul_precision("high")
    Verifier.load(tiny_verifier, torch.float32, torch.device("cpu"))
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cuda.matmul.allow_tf32


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
    with pytest.raises(InputError, match=f"{tmp_path}: has neither tokenizer.json nor"):
        load_tokenizer(tmp_path)


def documents() -> list[torch.Tensor]:
    """Longer than the tiny families' windows of 8, and of one token."""
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(300, (length,), generator=generator) for length in (19, 1, 30, 12)]


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "qwen3_moe", "deepseek_v3", "gpt_neox"])
def test_packed_documents_have_the_features_of_documents_alone(family, tmp_path):
    folder = make_family(family, tmp_path / "verifier")
    verifier = Verifier.load(folder, torch.float32, torch.device("cpu"))
    alone = torch.cat([verifier.features(document[None])[0] for document in documents()])
    padded = verifier.side_by_side(documents())
    assert verifier.read == (62, 4 * 30 - 62)
    assert verifier.tokens_in_a_pass([19, 1, 30, 12]) == 4 * 30
    assert verifier.pack_documents("sdpa") is None
    packed = verifier.side_by_side(documents())
    assert verifier.read == (2 * 62, 4 * 30 - 62)
    assert verifier.tokens_in_a_pass([19, 1, 30, 12]) == 62
    for features in (padded, packed):
        torch.testing.assert_close(features, alone, atol=1e-4, rtol=1e-4)
    rows = torch.stack([documents()[0], documents()[3].repeat(2)[:19]])
    torch.testing.assert_close(verifier.features(rows)[0], alone[:19], atol=1e-4, rtol=1e-4)


@pytest.mark.gpu
def test_a_gpu_reads_packed_documents_as_padded_ones(tmp_path):
    """In bfloat16, which rounds differently in the two ways."""
    folder = make_family("llama", tmp_path / "verifier")
    verifier = Verifier.load(folder, torch.bfloat16, torch.device("cuda"))
    padded = verifier.side_by_side(documents()).float()
    assert verifier.pack_documents("varlen") is None
    packed = verifier.side_by_side(documents()).float()
    assert (packed - padded).norm() < 0.05 * padded.norm()


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("gpt_oss", "its attention takes s_aux"),
        ("falcon", "a text's features differ by .*% behind another one"),  # code of its own
    ],
)
def test_documents_are_padded_where_packing_would_change_features(family, reason, tmp_path):
    folder = make_family(family, tmp_path / "verifier")
    verifier = Verifier.load(folder, torch.float32, torch.device("cpu"))
    before = verifier.attn, verifier.side_by_side(documents())
    assert re.fullmatch(reason, verifier.pack_documents("sdpa"))
    assert not verifier.packs
    assert verifier.attn == before[0]
    assert torch.equal(verifier.side_by_side(documents()), before[1])
