"""Templates are loaded, bounded and rendered; the mask covers each reply with its end token."""

import json
import signal

import pytest

from eagle.errors import InputError
from eagle.template import template as template_module
from eagle.template.proof import spans
from eagle.template.template import encode, load_template, render
from tests.conftest import ROOT
from tests.tiny import CHATML, MARKED, make_tokenizer

MESSAGES = [
    {"role": "user", "content": "why"},
    {"role": "assistant", "content": "the cat"},
    {"role": "user", "content": "how"},
    {"role": "assistant", "content": "a mat"},
]


def test_the_mask_covers_each_reply_with_its_end_token():
    tokenizer = make_tokenizer()
    encoded = encode(tokenizer, MARKED, MESSAGES, 10**6)
    masked = [span["text"] for span in spans(tokenizer, encoded) if span["masked"]]
    assert masked == ["the cat<|im_end|>", "a mat<|im_end|>"]
    cut = encode(tokenizer, MARKED, MESSAGES, 10)
    assert len(cut.token_ids) == len(cut.loss_mask) == 10
    assert cut.cut_tokens == len(encoded.token_ids) - 10


def test_a_template_without_markers_absent_or_broken_is_refused(tmp_path):
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


LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (LOOPS, "still rendering one conversation after 0.3 s; it loops for ever"),
        ("{{ 'x' * 2000000 }}", "renders 2,000,000 characters, more than 1,000,000 beyond"),
        ("{{ 'x' * 10**11 }}", "more than 1,073,741,824 bytes to render one conversation"),
        ("{{ range(10**9) | list }}", "OverflowError: Range too big"),
        ("{{ messages + 1 }}", "TypeError"),
        ("{{ messages.clear() }}", "access to attribute 'clear' of 'list' object is unsafe"),
    ],
)
def test_a_template_beyond_its_bounds_is_broken_off(monkeypatch, tmp_path, template, expected):
    monkeypatch.setattr(template_module, "RENDER_SECONDS", 0.3)
    handler = signal.getsignal(signal.SIGALRM)
    path = tmp_path / "hostile.jinja"
    path.write_text(template + "{% generation %}{% endgeneration %}")
    with pytest.raises(InputError, match=expected):
        load_template(str(path), make_tokenizer())
    assert signal.getsignal(signal.SIGALRM) is handler
    assert render(make_tokenizer(), CHATML, MESSAGES, False).startswith("<|im_start|>user\nwhy")


def test_a_template_that_loops_on_one_conversation_only_is_broken_off(monkeypatch):
    monkeypatch.setattr(template_module, "RENDER_SECONDS", 0.3)
    template = "{% if messages | length > 3 %}" + LOOPS + "{% endif %}" + MARKED
    assert encode(make_tokenizer(), template, MESSAGES[:2], 99).token_ids
    with pytest.raises(InputError, match="loops for ever"):
        encode(make_tokenizer(), template, MESSAGES, 99)


def test_the_upstream_example_template_masks_llama2_replies():
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
    masked = [span["text"].strip() for span in spans(tokenizer, encoded) if span["masked"]]
    assert masked == ["the cat <|im_end|>", "a mat <|im_end|>"]
