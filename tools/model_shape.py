"""The sizes of a verifier and its draft, from files that say them without being loaded."""

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from eagle.config import Verifier
from eagle.errors import InputError
from eagle.files import read_json
from eagle.hub import hub_errors
from eagle.verifier.package import package_folder

DOWNLOADED = Path("resources/verifier")
GGUF_VALUE = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
GGUF_STRING, GGUF_ARRAY = 8, 9
GGUF_CONFIG = {
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "context_length": "max_position_embeddings",
    "vocab_size": "vocab_size",
}


@dataclass(frozen=True)
class Shape:
    """What decides the cost of a decoder of Llama's kind."""

    hidden: int
    inner: int
    layers: int
    heads: int
    key_heads: int
    head_width: int
    vocabulary: int
    context: int
    tied: bool
    counted_weights: int | None = None
    """All weights of the files, where they were at hand."""
    folder: Path | None = None
    """Where its tokenizer is, if it is on this machine."""

    @classmethod
    def of(cls, config: dict, folder: Path | None = None) -> "Shape":
        """From a config.json of transformers; of a model of several parts, that of the text."""
        text = config.get("text_config", config)
        try:
            hidden, heads = text["hidden_size"], text["num_attention_heads"]
            return cls(
                hidden, text["intermediate_size"], text["num_hidden_layers"], heads,
                text.get("num_key_value_heads") or heads, text.get("head_dim") or hidden // heads,
                text["vocab_size"], text["max_position_embeddings"],
                bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
                _weights_of_files(folder) if folder else None, folder,
            )  # fmt: skip
        except KeyError as error:
            raise InputError(f"the config has no {error}, so its sizes are not known") from None

    @property
    def layer_weights(self) -> int:
        """Of the products in all layers."""
        if self.counted_weights is not None:
            return self.counted_weights - self._embeddings
        return self.layers * self._of_layer

    @property
    def weights(self) -> int:
        return self.layer_weights + self._embeddings

    @property
    def _embeddings(self) -> int:
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def _of_layer(self) -> int:
        attention = 2 * self.hidden * self.head_width * (self.heads + self.key_heads)
        return attention + 3 * self.hidden * self.inner

    def draft(self, file: Path | None) -> "Shape":
        """The draft's: one layer of the same shape, or of that in a config file.

        Raises:
            InputError: the file is of a verifier of another width.
        """
        own = {"max_position_embeddings": self.context, "vocab_size": self.vocabulary}
        one = self if file is None else Shape.of(own | read_json(file))
        if one.hidden != self.hidden:
            raise InputError(
                f"train.eagle_config_path = {file}: the draft's hidden_size is {one.hidden}, the "
                f"verifier's is {self.hidden}; choose the verifier that the draft belongs to"
            )
        return Shape(
            self.hidden, one.inner, 1, one.heads, one.key_heads, one.head_width, 0, self.context,
            True,
        )  # fmt: skip

    @property
    def draft_weights(self) -> int:
        """Of a draft of this shape: its layer, its norm, and what joins feature and embedding."""
        return self._of_layer + self.hidden + 2 * self.hidden**2


def shape_of(verifier: Verifier) -> Shape:
    """The sizes of the verifier in params.yaml.

    Raises:
        InputError: nothing at hand says them, or the hub does not give the config.
    """
    manifest = DOWNLOADED / "manifest.json"
    if manifest.is_file():
        made = read_json(manifest)
        if (made["source"], made["revision"]) == (verifier.source, verifier.revision):
            return Shape.of(read_json(DOWNLOADED / "config.json"), DOWNLOADED)
    kind, _, name = verifier.source.partition(":")
    if kind == "path":
        return Shape.of(read_json(Path(name) / "config.json"), Path(name))
    if kind == "package":
        (file,) = package_folder(name, verifier.revision).rglob("*.gguf")
        return Shape.of(gguf_config(file) | {"tie_word_embeddings": True})
    from huggingface_hub import hf_hub_download

    with hub_errors(name, f"verifier.source = {verifier.source}"):
        return Shape.of(
            read_json(Path(hf_hub_download(name, "config.json", revision=verifier.revision)))
        )


def gguf_config(file: Path) -> dict:
    """The sizes in the head of a GGUF file, by the names of a config.json."""
    config = {}
    with file.open("rb") as opened:
        opened.seek(16)  # magic, version, number of tensors
        (count,) = struct.unpack("<Q", opened.read(8))
        for _ in range(count):
            key = _gguf_string(opened)
            if key.startswith("tokenizer."):
                break  # long lists, which come after the sizes
            value = _gguf_value(opened, struct.unpack("<I", opened.read(4))[0])
            name = GGUF_CONFIG.get(key.partition(".")[2])
            if name:
                config[name] = value
    return config


def _gguf_string(opened: BinaryIO) -> str:
    (length,) = struct.unpack("<Q", opened.read(8))
    return opened.read(length).decode()


def _gguf_value(opened: BinaryIO, kind: int):
    if kind == GGUF_STRING:
        return _gguf_string(opened)
    if kind == GGUF_ARRAY:
        kind, count = struct.unpack("<IQ", opened.read(12))
        return [_gguf_value(opened, kind) for _ in range(count)]
    form = "<" + GGUF_VALUE[kind]
    return struct.unpack(form, opened.read(struct.calcsize(form)))[0]


def _weights_of_files(folder: Path) -> int | None:
    """The number of weights in a folder's safetensors files, from their headers."""
    total = 0
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            header = json.loads(opened.read(length))
        total += sum(math.prod(t["shape"]) for n, t in header.items() if n != "__metadata__")
    return total or None
