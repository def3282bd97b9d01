"""A tiny verifier and data, made on the spot: what makes the tests fast and independent."""

import json
import os
import random
from pathlib import Path

import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from eagle.checksums import read_checksums
from eagle.config import Params, Section
from eagle.files import sha256_of_file, write_checksums

PARAMS = Path(__file__).parents[1] / "params.yaml"
WORDS = (
    "the cat sat on a mat and saw red blue green birds fly over hills why how what is it".split()
)

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{{ message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MARKED = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ message['content'] + '<|im_end|>' + '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def settings(section: str, **values: object) -> Section:
    """A section of the shipped params.yaml with other values for some of its keys."""
    shipped = yaml.safe_load(PARAMS.read_text())[section]
    return Params.model_fields[section].annotation(**shipped | values)


def make_tokenizer(template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of about 300 tokens with ChatML's special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 5, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=template,
    )


def make_sentencepiece(folder: Path) -> Path:
    """Write a tokenizer.model like Llama-2's and Vicuna's, and what transformers knows it by."""
    from sentencepiece import SentencePieceTrainer  # few tests need it

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "tokenizer.model").open("wb") as model:
        SentencePieceTrainer.train(
            sentence_iterator=iter([" ".join(WORDS), "USER: ASSISTANT: The 17 times."] * 5),
            model_writer=model, vocab_size=330, model_type="bpe", byte_fallback=True,
            hard_vocab_limit=False, normalization_rule_name="identity",
            remove_extra_whitespaces=False, minloglevel=2,
        )  # fmt: skip
    config = {
        "tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>",
        "unk_token": "<unk>", "legacy": False,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def make_verifier(
    folder: Path,
    template: str | None = CHATML,
    seed: int = 0,
    hidden_size: int = 32,
    **config: object,
) -> Path:
    """Write a random Llama of two layers, grouped heads and tied embeddings, with a tokenizer."""
    tokenizer = make_tokenizer(template)
    torch.manual_seed(seed)
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": hidden_size,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
        "tie_word_embeddings": True,
        "initializer_range": 0.3,  # far from uniform, so that greedy decoding has clear choices
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
    }
    model = LlamaForCausalLM(LlamaConfig(**(shape | config)))
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def split_weights(folder: Path) -> Path:
    """Rewrite a verifier's weights as several files with an index."""
    model = LlamaForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="60KB")
    return folder


def make_conversations(count: int, seed: int = 0, turns: int = 2) -> list[dict]:
    """ShareGPT rows of random words; lengths differ."""
    generator = random.Random(seed)

    def text() -> str:
        return " ".join(generator.choices(WORDS, k=generator.randint(3, 12)))

    return [
        {
            "id": f"row-{number}",
            "conversations": [
                {"from": speaker, "value": text()}
                for _ in range(generator.randint(1, turns))
                for speaker in ("human", "gpt")
            ],
        }
        for number in range(count)
    ]


def make_messages(count: int, seed: int = 0) -> list[dict]:
    """The same in the messages form."""
    names = {"human": "user", "gpt": "assistant"}
    return [
        {
            "id": row["id"],
            "messages": [
                {"role": names[turn["from"]], "content": turn["value"]}
                for turn in row["conversations"]
            ],
        }
        for row in make_conversations(count, seed)
    ]


def write_json_lines(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def flip(path: Path, at: float = 0.5) -> None:
    """Flip a bit of a file as a disk does: its time, size and place stay as they are.

    Args:
        at: where, as a share of its length.
    """
    before, mode = path.stat(), path.stat().st_mode
    path.chmod(0o644)  # DVC write-protects what lies in its cache
    with path.open("r+b") as file:
        file.seek(min(int(at * before.st_size), before.st_size - 1))
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    path.chmod(mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def accept(folder: Path) -> None:
    """Have a folder's list say what is in its files now, as if they had been written so."""
    hashes = read_checksums(folder).hashes
    write_checksums(folder, {str(p.relative_to(folder)): sha256_of_file(p) for p in hashes})
