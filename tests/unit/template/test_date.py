"""A template that writes the date writes the stated one, on every day on which it is rendered."""

from datetime import datetime

import pytest
from transformers.utils import chat_template_utils

from eagle.errors import InputError
from eagle.template.choice import choose_template
from eagle.template.date import DIRECTIVES, dated
from eagle.template.proof import validate
from eagle.template.template import encode, render
from tests.conftest import ROOT
from tests.tiny import CHATML, MARKED, make_messages, make_tokenizer

MESSAGES = [{"role": "user", "content": "why"}, {"role": "assistant", "content": "the cat"}]
TODAY = "<|im_start|>system\nIt is {{ strftime_now('%A, %d %B %Y') }}.<|im_end|>\n"
WEEKEND = (
    "{% if strftime_now('%a') in ['Sat', 'Sun'] %}<|im_start|>system\nRest.<|im_end|>\n{% endif %}"
)
GIVEN = "{{ '<|im_start|>system\nToday Date: ' + date_string + '<|im_end|>\n' }}"


@pytest.fixture
def on(monkeypatch):
    """Sets the day on which templates are rendered."""

    def _on(day: str) -> None:
        class Clock(datetime):
            @classmethod
            def now(cls):
                return cls.fromisoformat(day)

        monkeypatch.setattr(chat_template_utils, "datetime", Clock)

    return _on


@pytest.mark.parametrize(
    "start", [TODAY, "\n" + TODAY, "{%- if true -%} \n" + TODAY + "{% endif %}"]
)
@pytest.mark.parametrize("body", [CHATML, MARKED])
def test_the_stated_day_is_written_on_every_day(on, start, body):
    tokenizer = make_tokenizer(start + body)
    on("2001-01-01")
    chosen = choose_template(None, tokenizer, [tokenizer.eos_token_id], "2024-07-26")
    tokens = encode(tokenizer, chosen.text, MESSAGES, 999)
    on("2024-07-26")
    expected = render(tokenizer, start + body, MESSAGES, False)  # what serving renders on that day
    assert "It is Friday, 26 July 2024." in expected
    on("2031-12-24")
    assert render(tokenizer, chosen.text, MESSAGES, False) == expected
    assert render(tokenizer, chosen.served, MESSAGES, False) == expected
    assert encode(tokenizer, chosen.text, MESSAGES, 999) == tokens
    report = validate(tokenizer, chosen, make_messages(3), [tokenizer.eos_token_id], 999)
    assert report["replies"] > 0


@pytest.mark.parametrize("start", [TODAY, WEEKEND, GIVEN])
def test_a_template_that_writes_the_date_is_refused_without_one(tmp_path, start):
    tokenizer = make_tokenizer(start + CHATML)
    with pytest.raises(InputError, match="own chat template: writes today's date .*template.date"):
        choose_template(None, tokenizer, [tokenizer.eos_token_id])
    path = tmp_path / "marked.jinja"
    path.write_text(start + MARKED)
    tokenizer = make_tokenizer(None)
    with pytest.raises(InputError, match="marked.jinja: writes today's date .*template.date"):
        choose_template(str(path), tokenizer, [tokenizer.eos_token_id])
    chosen = choose_template(str(path), tokenizer, [tokenizer.eos_token_id], "2024-07-27")
    assert chosen.text.endswith(start + MARKED)


def test_a_template_whose_date_is_given_from_outside_gets_the_stated_day():
    tokenizer = make_tokenizer()
    template = dated(tokenizer, GIVEN + CHATML, "2024-07-26", "here")
    assert "Today Date: 26 Jul 2024<|im_end|>" in render(tokenizer, template, MESSAGES, False)


@pytest.mark.parametrize(
    "template",
    [
        CHATML,
        "{% set date_string = date_string | default('26 Jul 2024') %}{{ date_string }}" + CHATML,
        "{% if tools %}{{ strftime_now('%d') }}{% endif %}" + CHATML,
        "{% if strftime_now is not defined %}{{ raise_exception('old') }}{% endif %}" + CHATML,
    ],
)
@pytest.mark.parametrize("date", [None, "2025-01-31"])
def test_a_template_that_writes_no_date_stays_as_it_is(template, date):
    assert dated(make_tokenizer(), template, date, "here") == template


def test_a_dated_template_asks_for_no_date_again():
    tokenizer = make_tokenizer()
    once = dated(tokenizer, TODAY + CHATML, "2024-07-26", "here")
    assert dated(tokenizer, once, None, "here") == once
    assert dated(tokenizer, once, "2025-01-31", "here") == once


def test_every_directive_is_that_of_strftime(on):
    tokenizer, day = make_tokenizer(), "2024-03-05"
    template = "{{ strftime_now('" + " ".join(DIRECTIVES) + "') }}{{ messages[0].content }}"
    on(day)
    expected = render(tokenizer, template, MESSAGES, False)
    on("2031-12-24")
    assert render(tokenizer, dated(tokenizer, template, day, "x"), MESSAGES, False) == expected
    assert "%" not in expected


def test_the_shipped_template_of_llama_3_2_writes_the_stated_day():
    tokenizer = make_tokenizer(None)
    tokenizer.bos_token = "<|im_start|>"
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|eot_id|>"]})
    stop = [tokenizer.convert_tokens_to_ids("<|eot_id|>")]
    chosen = choose_template(
        str(ROOT / "resources/chat_templates/llama3.2.jinja"), tokenizer, stop, "2025-01-31"
    )
    assert "Today Date: 31 Jan 2025\n" in render(tokenizer, chosen.text, MESSAGES, False)
