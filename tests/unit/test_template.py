"""The template renders like the verifier's own, and its mask is the replies and nothing else."""

import json

import pytest

from eagle.errors import InputError
from eagle.template import encode, load_template, spans, validate
from tests.conftest import ROOT
from tests.tiny import CHATML, MARKED, make_messages, make_tokenizer

MESSAGES = [
    {"role": "user", "content": "why"},
    {"role": "assistant", "content": "the cat"},
    {"role": "user", "content": "how"},
    {"role": "assistant", "content": "a mat"},
]


def test_the_mask_covers_each_reply_with_its_end_token():
    tokenizer = make_tokenizer()
    encoded = encode(tokenizer, MARKED, MESSAGES, 10**6)
    said = [span["text"] for span in spans(tokenizer, encoded) if span["masked"]]
    assert said == ["the cat<|im_end|>", "a mat<|im_end|>"]
    cut = encode(tokenizer, MARKED, MESSAGES, 10)
    assert len(cut.token_ids) == len(cut.loss_mask) == 10
    assert cut.cut == len(encoded.token_ids) - 10


def test_a_right_template_is_proven():
    tokenizer = make_tokenizer()
    report = validate(tokenizer, MARKED, make_messages(5), [tokenizer.eos_token_id])
    assert report["conversations"] == 5
    assert report["renders_like_the_verifiers_own"]
    assert 0 < report["mask_share"] < 1
    assert not report["eos_is_pad"]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (MARKED.replace("assistant\n' }}{% endif", "assistant:' }}{% endif"), "renders ':'"),
        (MARKED.replace("<|im_start|>' +", "<|im_start|> ' +", 1), "where the verifier's own"),
        (
            MARKED.replace("{{ message['content'] + '<|im_end|>' }}{% endg",
                           "{{ message['content'] }}{% endg")
            .replace("endgeneration %}{{ '", "endgeneration %}{{ '<|im_end|>"),
            "the end token is outside the mask",
        ),
        (
            MARKED.replace("{% generation %}", "").replace(
                "{% if message['role'] == 'assistant' %}", "{% generation %}"
                "{% if message['role'] == 'assistant' %}").replace(
                "{% endgeneration %}", "").replace(
                "{% endif %}{% endfor", "{% endif %}{% endgeneration %}{% endfor"),
            "the mask has 1 runs|the mask covers|2 runs",
        ),
    ],
)  # fmt: skip
def test_a_wrong_template_is_refused_with_what_differs(template, expected):
    tokenizer = make_tokenizer()
    with pytest.raises(InputError, match=expected):
        validate(tokenizer, template, [], [tokenizer.eos_token_id])


def test_a_template_without_markers_absent_or_broken_is_refused(tmp_path):
    with pytest.raises(InputError, match="the verifier's own chat template: no {% generation"):
        load_template(None, make_tokenizer(CHATML))
    with pytest.raises(InputError, match="no {% generation"):
        load_template(None, make_tokenizer(None))
    with pytest.raises(InputError, match="no such file"):
        load_template(str(tmp_path / "absent.jinja"), make_tokenizer())
    broken = tmp_path / "broken.jinja"
    broken.write_text("{{ 'unclosed }}")
    with pytest.raises(InputError, match="not valid Jinja"):
        load_template(str(broken), make_tokenizer())
    commented = tmp_path / "commented.jinja"
    commented.write_text("{# {% generation %}{% endgeneration %} #}" + CHATML)
    with pytest.raises(InputError, match="no {% generation"):
        load_template(str(commented), make_tokenizer())


def test_markers_with_white_space_control_are_markers(tmp_path):
    path = tmp_path / "trimmed.jinja"
    path.write_text(MARKED.replace("{% generation %}", "{%- generation -%}") + "\n")
    assert load_template(str(path), make_tokenizer()).endswith("{% endif %}")


def test_the_pages_example_template_masks_llama2_replies():
    path = ROOT / "resources/example_chat_template_with_generation_keyword.json"
    template = json.loads(path.read_text())["chat_template"]
    tokenizer = make_tokenizer()
    tokenizer.bos_token = "<|im_start|>"
    messages = [{"role": "system", "content": "be brief"}, *MESSAGES]
    encoded = encode(tokenizer, template, messages, 10**6)
    text = "".join(span["text"] for span in spans(tokenizer, encoded))
    assert text == (
        "<|im_start|>[INST] <<SYS>>\nbe brief\n<</SYS>>\n\nwhy [/INST] the cat <|im_end|>"
        "<|im_start|>[INST] how [/INST] a mat <|im_end|>"
    )
    said = [span["text"].strip() for span in spans(tokenizer, encoded) if span["masked"]]
    assert said == ["the cat <|im_end|>", "a mat <|im_end|>"]
