"""Which verifiers and tokenizers can be used."""

import pytest
import torch

from eagle.errors import InputError
from eagle.tokens.tokenizer import load_tokenizer
from eagle.verifier.verifier import Verifier
from tests.tiny import make_verifier


@pytest.mark.parametrize(
    "scaling", ["final_logit_softcapping", "logits_scaling", "logit_scale", "lm_head_multiplier"]
)
def test_a_verifier_whose_logits_are_not_features_times_head_is_refused(tmp_path, scaling):
    folder = make_verifier(tmp_path, **{scaling: 0.5})
    with pytest.raises(InputError, match=f"uses {scaling}; the draft's logits would differ"):
        Verifier.load(folder, torch.float32, torch.device("cpu"))


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
    with pytest.raises(InputError, match=f"{tmp_path}: its tokenizer cannot be loaded"):
        load_tokenizer(tmp_path)
