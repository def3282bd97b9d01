"""Which template is chosen for a verifier, and what the proof lets pass and refuses."""

import json

import pytest
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from eagle.errors import InputError
from eagle.template.choice import choose_template
from eagle.template.proof import PROBES, spans, validate
from eagle.template.template import encode, render
from tests.conftest import ROOT
from tests.tiny import CHATML, MARKED, WORDS, make_messages, make_tokenizer

DATE = "2025-01-31"
EXCHANGE = [{"role": "user", "content": "why"}, {"role": "assistant", "content": "the cat"}]

# The families' own templates as their models ship them (tools and documents left out), and the
# token that ends a reply.
ALTERNATE = (
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/...') }}{% endif %}"
)
LLAMA3_TURN = (
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    "+ message['content'] | trim + '<|eot_id|>' %}"
)
LLAMA3_PROMPT = (
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA3_1 = """{{- bos_token }}
{%- if not date_string is defined %}
    <DATE>
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + \
message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
LLAMA3_2_DATE = """{%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}"""
QWEN3 = """{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and \
not(message.content.startswith('<tool_response>') and \
message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set content = message.content %}
        {%- set reasoning_content = '' %}
        {%- if '</think>' in message.content %}
            {%- set content = message.content.split('</think>')[-1].lstrip('\\n') %}
            {%- set reasoning_content = message.content.split('</think>')[0].rstrip('\\n')\
.split('<think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\\n<think>\\n' + \
reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""
ZEPHYR = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""
PHI3 = (
    "{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{'<|system|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'user' %}"
    "{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'assistant' %}"
    "{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
CHATML_WITH_SYSTEM = (
    "{%% for message in messages %%}{%% if loop.first and messages[0]['role'] != 'system' %%}"
    "{{ '<|im_start|>system\n%s<|im_end|>\n' }}{%% endif %%}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{%% endfor %%}{%% if add_generation_prompt %%}{{ '<|im_start|>assistant\n' }}{%% endif %%}"
)
VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions."
)
FAMILIES = {
    "chatml": (CHATML, "<|im_end|>"),
    "gemma": (
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for message in messages %}" + ALTERNATE + "{% if (message['role'] == 'assistant') %}"
        "{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}"
        "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}",
        "<end_of_turn>",
    ),
    "llama2": (
        "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
        "{% set system_message = messages[0]['content'] %}{% else %}"
        "{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
        "{% for message in loop_messages %}" + ALTERNATE +
        "{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\n' + "
        "system_message + '\n<</SYS>>\n\n' + message['content'] %}{% else %}"
        "{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}"
        "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
        "{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}"
        "{% endif %}{% endfor %}",
        "</s>",
    ),
    "llama3": (
        "{% set loop_messages = messages %}{% for message in loop_messages %}" + LLAMA3_TURN +
        "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
        "{{ content }}{% endfor %}" + LLAMA3_PROMPT,
        "<|eot_id|>",
    ),
    "llama3.1": (LLAMA3_1.replace("<DATE>", '{%- set date_string = "26 Jul 2024" %}'),
                 "<|eot_id|>"),
    "llama3.2": (LLAMA3_1.replace("<DATE>", LLAMA3_2_DATE), "<|eot_id|>"),
    "mistral": (
        "{{ bos_token }}{% for message in messages %}" + ALTERNATE +
        "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
        "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}"
        "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}"
        "{% endif %}{% endfor %}",
        "</s>",
    ),
    "phi3": (PHI3, "<|end|>"),
    "qwen2": (CHATML_WITH_SYSTEM % "You are a helpful assistant.", "<|im_end|>"),
    "qwen2.5": (
        CHATML_WITH_SYSTEM % "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
        "<|im_end|>",
    ),
    "qwen3": (QWEN3, "<|im_end|>"),
    "smollm2": (
        CHATML_WITH_SYSTEM % "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
        "<|im_end|>",
    ),
    "vicuna": (
        "{% if messages[0]['role'] == 'system' %}{% set system_message = messages[0]['content'] %}"
        "{% set messages = messages[1:] %}{% else %}{% set system_message = \"" + VICUNA_SYSTEM +
        "\" %}{% endif %}{{ bos_token + system_message + ' ' }}{% for message in messages %}"
        "{% if message['role'] == 'user' %}{{ 'USER: ' + message['content'] + ' ' }}{% else %}"
        "{{ 'ASSISTANT: ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}",
        "</s>",
    ),
    "zephyr": (ZEPHYR, "</s>"),
}  # fmt: skip


def tokenizer_of(template: str, end: str):
    """A tokenizer that ships `template`, knows its special tokens, and pads with its end token."""
    tokenizer = make_tokenizer(template)
    special = ["<s>", "</s>", end, "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = "<s>", end, end
    return tokenizer, [tokenizer.convert_tokens_to_ids(end)]


def sentencepiece_tokenizer(template: str):
    """Made like Llama-2's: spaces become "▁", one stands before the text, unknown characters fall
    back to bytes, and decoding takes the first space away."""
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
        decoders.Strip(" ", 1, 0),
    ])  # fmt: skip
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<unk>", "<s>", "</s>", *byte_tokens], show_progress=False
    )
    tokenizer.train_from_iterator(["▁".join(WORDS)] * 5, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        pad_token="<unk>", chat_template=template,
    )  # fmt: skip


def test_llama2s_template_is_proven_for_a_tokenizer_like_its_own():
    tokenizer = sentencepiece_tokenizer(FAMILIES["llama2"][0])
    stop = [tokenizer.eos_token_id]
    chosen = choose_template(None, tokenizer, stop)
    assert chosen.origin == "the family llama2"
    report = validate(tokenizer, chosen, make_messages(3), stop, 10**6)
    assert report["replies"] > 0


def test_a_tokenizer_may_compose_characters():
    tokenizer, stop = tokenizer_of(*FAMILIES["smollm2"])
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    chosen = choose_template(None, tokenizer, stop)
    assert validate(tokenizer, chosen, make_messages(3), stop, 10**6)["replies"] > 0


def test_every_shipped_template_is_a_tested_family():
    shipped = {path.stem for path in (ROOT / "resources/chat_templates").glob("*.jinja")}
    assert shipped == set(FAMILIES)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_familys_template_is_known_by_its_rendering(name):
    tokenizer, stop = tokenizer_of(*FAMILIES[name])
    chosen = choose_template(None, tokenizer, stop, DATE)
    assert chosen.origin == f"the family {name}"
    text = (ROOT / f"resources/chat_templates/{name}.jinja").read_text().removesuffix("\n")
    assert chosen.text.endswith("%}\n" + text) if name == "llama3.2" else chosen.text == text
    report = validate(tokenizer, chosen, make_messages(3), stop, 10**6)
    assert report["probes_refused_by_both"] == (3 if name in ("gemma", "mistral") else 0)
    assert report["probes_the_verifier_rewrites"] == 0
    assert report["replies_whose_white_space_joins_the_prompt"] == 0
    assert report["eos_is_pad"]
    assert report["replies"] > 0


@pytest.mark.parametrize("name", FAMILIES)
def test_markers_are_put_into_a_template_of_no_known_family(name):
    own, end = FAMILIES[name]
    tokenizer, stop = tokenizer_of(own, end)
    loop = "{%- for message in" if name.startswith("llama3.") else "{% for message in"
    unknown = own.replace(loop, "{{ 'unknown ' }}" + loop, 1)
    if name == "qwen3":
        unknown = own.replace("think>", "thought>")
    if name == "phi3":  # it ends a conversation with another token than a reply
        tokenizer.eos_token = "</s>"
    assert unknown != own
    tokenizer.chat_template = unknown
    if name == "qwen3":  # an empty thought before the last reply alone, which only its family knows
        with pytest.raises(InputError, match="probe 'plain': the mask covers '<thought>"):
            choose_template(None, tokenizer, stop)
        return
    chosen = choose_template(None, tokenizer, stop, DATE)
    assert chosen.origin == "the verifier's own, with markers put in"
    encoded = encode(tokenizer, chosen.text, EXCHANGE * 2, 10**6)
    masked = [span["text"] for span in spans(tokenizer, encoded) if span["masked"]]
    assert [text.strip() for text in masked] == [masked[0].strip()] * 2
    assert masked[0].strip().startswith("the cat") and masked[0].endswith(end)
    assert render(tokenizer, chosen.text, EXCHANGE, True) == render(
        tokenizer, chosen.served, EXCHANGE, True
    )
    assert chosen.served.endswith(unknown)


@pytest.mark.parametrize(
    "own",
    [
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}\n",
        "  {% for m in messages %}\n  {{ m.role | upper }}: {{ m.content }}<|im_end|>\n"
        "  {% endfor %}\n{% if add_generation_prompt %}\n  ASSISTANT: {% endif %}\n  ",
        "{% macro turn(m) %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endmacro %}"
        "{% for m in messages %}{{ turn(m) }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}",
        ("{% for message in messages %}" + LLAMA3_TURN + "{{ content }}{% endfor %}"
         "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
         ).replace("<|eot_id|>", "<|im_end|>"),
    ],
)  # fmt: skip
def test_markers_are_put_into_whatever_ends_its_replies(own):
    tokenizer = make_tokenizer(own)
    chosen = choose_template(None, tokenizer, [tokenizer.eos_token_id])
    assert chosen.origin == "the verifier's own, with markers put in"
    encoded = encode(tokenizer, chosen.text, EXCHANGE, 10**6)
    masked = [span["text"].strip() for span in spans(tokenizer, encoded) if span["masked"]]
    assert masked == ["the cat<|im_end|>"]


SPACE_WITHIN = "{% generation %}{{ ' ' + "
SPACE_BEFORE = "{{ ' ' }}{% generation %}{{ "


def test_the_verifiers_own_marked_template_is_used_as_it_is():
    tokenizer = make_tokenizer(MARKED)
    chosen = choose_template(None, tokenizer, [tokenizer.eos_token_id])
    assert (chosen.text, chosen.origin) == (MARKED, "the verifier's own")
    page = json.loads(
        (ROOT / "resources/example_chat_template_with_generation_keyword.json").read_text()
    )["chat_template"]
    for own, seams in ((page, 0), (page.replace(SPACE_WITHIN, SPACE_BEFORE), 1)):
        tokenizer, stop = tokenizer_of(own, "</s>")
        chosen = choose_template(None, tokenizer, stop)
        assert chosen.text == own
        # the space before a reply joins its letters in serving too; before other signs it is a
        # token of its own, which the reply begins with, and which markers behind it leave out
        odd = [{"id": 7, "messages": [EXCHANGE[0], {"role": "assistant", "content": "你好"}]}]
        report = validate(tokenizer, chosen, odd, stop, 10**6)
        assert report["replies_whose_white_space_joins_the_prompt"] == seams


@pytest.mark.parametrize("dash", ["", "-"])
def test_markers_of_the_verifiers_that_do_not_stand_the_proof_are_put_in_anew(dash):
    """SmolLM3's template marks the header too, and what follows the end token."""
    header = "{{ '<|im_start|>bot\n' }}"
    own = (
        "{% for m in messages %}\n{% if m.role == 'assistant' %}\n"
        "  {%- generation %}\n" + header + "{{ m.content }}<|im_end|>\n"
        "  {% endgeneration -%}\n{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}" + header + "{% endif %}"
    ).replace("-", dash)
    tokenizer = make_tokenizer(own)
    chosen = choose_template(None, tokenizer, [tokenizer.eos_token_id])
    assert "markers put in (its own fail: template the verifier's own, probe" in chosen.origin
    encoded = encode(tokenizer, chosen.text, EXCHANGE, 10**6)
    masked = [span["text"] for span in spans(tokenizer, encoded) if span["masked"]]
    assert [text.strip() for text in masked] == ["the cat<|im_end|>"]
    assert render(tokenizer, chosen.text, EXCHANGE, False) == render(
        tokenizer, own, EXCHANGE, False
    )


def test_wrong_markers_where_none_can_be_put_in_are_refused_with_both_reasons():
    own = (
        "{% for m in messages %}[{{ m.role }}]\n{% if m.role == 'assistant' %}{% generation %}"
        "{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant]\n{% endif %}"
    )
    tokenizer = make_tokenizer(own)
    with pytest.raises(InputError, match="(?s)probe 'plain'.*taken out, .*none of the tokens that"):
        choose_template(None, tokenizer, [tokenizer.eos_token_id])


@pytest.mark.parametrize("template", [CHATML, MARKED, FAMILIES["smollm2"][0]])
@pytest.mark.parametrize("stop", [["<|endoftext|>"], ["<|endoftext|>", "<|im_start|>"]])
def test_an_eos_token_that_ends_no_reply_is_named_with_the_one_that_does(template, stop, tmp_path):
    tokenizer = make_tokenizer(template)
    stop_token_ids = tokenizer.convert_tokens_to_ids(stop)
    expected = (
        r"generation_config.json .*config.json.*: eos_token_id is 0 \('<\|endoftext\|>'\).*ends a "
        r"reply with 2 \('<\|im_end\|>'\), .*add it, as eos_token_id = \[0, (1, )?2\]"
    )
    with pytest.raises(InputError, match=expected):
        choose_template(None, tokenizer, stop_token_ids)
    (tmp_path / "marked.jinja").write_text(MARKED)
    with pytest.raises(InputError, match=expected):
        choose_template(str(tmp_path / "marked.jinja"), make_tokenizer(None), stop_token_ids)


def test_the_eos_token_is_found_behind_white_space():
    tokenizer, stop = tokenizer_of(*FAMILIES["llama2"])
    with pytest.raises(InputError, match=r"ends a reply with \d+ \('</s>'\), where serving"):
        choose_template(None, tokenizer, [0])
    assert choose_template(None, tokenizer, [0, *stop]).origin == "the family llama2"


@pytest.mark.parametrize("name", ["phi3", "zephyr"])
@pytest.mark.parametrize("known", [True, False])
def test_tokens_of_the_prompt_may_take_in_the_white_space_after_them(name, known):
    """As the markers of the roles do in Phi-3's tokenizer."""
    own, end = FAMILIES[name]
    tokenizer, stop = tokenizer_of(own if known else own.replace("{%", "{{ 'x' }}{%", 1), end)
    if name == "phi3":  # it ends a conversation with another token than a reply
        tokenizer.eos_token = "</s>"
    markers = ["<|user|>", "<|assistant|>", "<|system|>", end]
    tokenizer.add_tokens([AddedToken(m, rstrip=True, special=True) for m in markers])
    chosen = choose_template(None, tokenizer, stop)
    assert (chosen.origin == f"the family {name}") == known
    encoded = encode(tokenizer, chosen.text, PROBES["white space at the edges"], 999)
    masked = [span["text"] for span in spans(tokenizer, encoded) if span["masked"]]
    assert masked == [f"a  b\n\nc \n{end}", f"so  {end}"]
    edges = [{"id": 1, "messages": PROBES["white space at the edges"]}]
    report = validate(tokenizer, chosen, edges, stop, 999)
    assert report["replies_whose_white_space_joins_the_prompt"] == 2
    plain = validate(tokenizer, chosen, make_messages(3), stop, 999)
    assert plain["replies_whose_white_space_joins_the_prompt"] == 0


def test_a_reply_that_begins_with_such_a_token_keeps_it():
    tokenizer = make_tokenizer(MARKED)
    tokenizer.add_tokens([AddedToken("<|aside|>", rstrip=True, special=True)])
    messages = [EXCHANGE[0], {"role": "assistant", "content": "<|aside|>  the cat"}]
    encoded = encode(tokenizer, MARKED, messages, 999)
    masked = [span["text"] for span in spans(tokenizer, encoded) if span["masked"]]
    assert masked == ["<|aside|>the cat<|im_end|>"]


def test_what_is_tokenised_otherwise_is_refused(monkeypatch):
    tokenizer = make_tokenizer(MARKED)
    theirs = tokenizer.apply_chat_template

    def without_its_first_token(messages, **arguments):
        encoded = theirs(messages, **arguments)
        if "return_dict" in arguments:
            mask = encoded["assistant_masks"]
            mask[mask.index(1)] = 0
        return encoded

    monkeypatch.setattr(tokenizer, "apply_chat_template", without_its_first_token)
    with pytest.raises(InputError, match="the tokenised conversation is not what transformers"):
        choose_template(None, tokenizer, [tokenizer.eos_token_id])


def test_an_empty_thought_that_the_prompt_opens_belongs_to_the_reply():
    """As in Qwen3.5, whose generation prompt ends with <think>."""
    own = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
        "{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    )
    tokenizer = make_tokenizer(own)
    chosen = choose_template(None, tokenizer, [tokenizer.eos_token_id])
    encoded = encode(tokenizer, chosen.text, EXCHANGE, 10**6)
    (masked,) = [span["text"] for span in spans(tokenizer, encoded) if span["masked"]]
    assert masked.strip() == "</think>\n\nthe cat<|im_end|>"


def test_a_verifier_without_a_usable_template_is_refused():
    with pytest.raises(InputError, match="has no chat template of its own; set template.file"):
        choose_template(None, make_tokenizer(None), [2])
    endless = make_tokenizer(
        "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    with pytest.raises(InputError, match=r"none of the tokens that end a reply.*'Hi there.\\n'"):
        choose_template(None, endless, [endless.eos_token_id])


def test_a_system_turn_that_moves_makes_a_rewritten_history():
    """As Mistral 7B v0.3 puts the system turn into the last user turn."""
    own = (
        "{{ bos_token }}{% set system = messages[0].content if messages[0].role == 'system' %}"
        "{% for m in messages if m.role != 'system' %}{% if m.role == 'user' %}{{ '[INST] ' }}"
        "{% if loop.last or loop.revindex == 2 and not add_generation_prompt %}"
        "{% if system %}{{ system + '\n\n' }}{% endif %}{% endif %}{{ m.content + '[/INST]' }}"
        "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
    )
    tokenizer, stop = tokenizer_of(own, "</s>")
    chosen = choose_template(None, tokenizer, stop)
    report = validate(tokenizer, chosen, make_messages(3), stop, 10**6)
    assert report["probes_the_verifier_rewrites"] == 1
    moved = [{"id": 9, "messages": PROBES["system and several turns"]}]
    with pytest.raises(InputError, match="conversation 9: .* rewrites earlier turns"):
        validate(tokenizer, chosen, moved, stop, 10**6)


def test_a_right_template_is_proven(tmp_path):
    path = tmp_path / "marked.jinja"
    path.write_text(MARKED)
    tokenizer = make_tokenizer()
    stop = [tokenizer.eos_token_id]
    chosen = choose_template(str(path), tokenizer, stop)
    report = validate(tokenizer, chosen, make_messages(5), stop, 20)
    assert report["template"] == str(path)
    assert report["conversations"] == 5
    assert report["cut_conversations"] > 0
    assert report["renders_like_the_verifiers_own"]
    assert 0 < report["mask_share"] < 1
    assert not report["eos_is_pad"]
    edged = [{"id": 1, "messages": [EXCHANGE[0], {"role": "assistant", "content": "  why"}]}]
    for joining, seams in (("\n\n", 0), ("\n ", 1)):
        tokenizer.add_tokens([joining])
        report = validate(tokenizer, chosen, edged, stop, 10**6)
        assert report["replies_whose_white_space_joins_the_prompt"] == seams


HEADER = "{{ '<|im_start|>' + message['role'] + '\n' }}{% if message['role'] == 'assistant' %}"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (MARKED.replace("assistant\n' }}{% endif", "assistant:' }}{% endif"), "renders ':'"),
        (MARKED.replace("<|im_start|>' +", "<|im_start|> ' +", 1), "where the verifier's own"),
        (MARKED + "{{ raise_exception('never') if messages | length > 4 }}",
         "never; the verifier's own template renders it"),
        (
            MARKED.replace("{{ message['content'] + '<|im_end|>' }}{% endg",
                           "{{ message['content'] }}{% endg")
            .replace("endgeneration %}{{ '", "endgeneration %}{{ '<|im_end|>"),
            "its end token is outside",
        ),
        (
            MARKED.replace("{% endgeneration %}{{ '\n' }}", "{{ '\n' }}{% endgeneration %}"),
            r"ends with '\\n', and its end token is outside",
        ),
        (
            MARKED.replace(HEADER, "{% if message['role'] == 'assistant' %}"
                           "{{ '<|im_start|>assistant' }}{% generation %}{{ '\n' }}"
                           "{% endgeneration %}{% else %}"
                           "{{ '<|im_start|>' + message['role'] + '\n' }}{% endif %}"
                           "{% if message['role'] == 'assistant' %}"),
            r"serving would send '\\n' before a reply where training has ''",
        ),
        (
            MARKED.replace("{% generation %}{{ message['content'] +",
                           "{{ message['content'][:1] }}{% generation %}"
                           "{{ message['content'][1:] +"),
            "the mask covers 'i there.', expected the reply 'Hi there.'",
        ),
        (
            MARKED.replace("{% generation %}", "").replace(
                "{% if message['role'] == 'assistant' %}", "{% generation %}"
                "{% if message['role'] == 'assistant' %}").replace(
                "{% endgeneration %}", "").replace(
                "{% endif %}{% endfor", "{% endif %}{% endgeneration %}{% endfor"),
            "the mask has 2 runs for 1",
        ),
        (
            MARKED.replace("{% if message['role'] == 'assistant' %}",
                           "{% if message['role'] == 'assistant' and loop.index > 2 %}"),
            "the mask has 0 runs for 1",
        ),
    ],
)  # fmt: skip
def test_a_wrong_template_is_refused_with_what_differs(tmp_path, template, expected):
    path = tmp_path / "wrong.jinja"
    path.write_text(template)
    tokenizer = make_tokenizer()
    with pytest.raises(InputError, match=expected):
        choose_template(str(path), tokenizer, [tokenizer.eos_token_id])


def test_a_template_that_accepts_what_the_verifiers_refuses_is_refused(tmp_path):
    own = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    path = tmp_path / "marked.jinja"
    path.write_text(MARKED)
    tokenizer = make_tokenizer(own + CHATML)
    with pytest.raises(InputError, match="refuses this conversation .*no system"):
        choose_template(str(path), tokenizer, [tokenizer.eos_token_id])
    path.write_text(own + MARKED)
    chosen = choose_template(str(path), tokenizer, [tokenizer.eos_token_id])
    report = validate(tokenizer, chosen, make_messages(2), [tokenizer.eos_token_id], 99)
    assert report["probes_refused_by_both"] == 3
    with pytest.raises(InputError, match="conversation 3: .*no system"):
        row = {"id": 3, "messages": PROBES["system"]}
        validate(tokenizer, chosen, [row], [tokenizer.eos_token_id], 99)
