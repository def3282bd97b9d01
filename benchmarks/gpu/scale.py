"""How large everything is: as users have it on a GPU, or tiny on a CPU to prove that it runs."""

from dataclasses import dataclass

import torch

from eagle.decoding.speculative import Launch


@dataclass(frozen=True)
class Scale:
    device: torch.device
    verifier: dict
    """Llama config of the verifier whose speed is measured."""
    small: dict
    """Llama config of the verifier with which numbers are compared between runs and devices."""
    product: int
    """Rows and columns of the matrices whose product is the ceiling."""
    copied: int
    """Bytes of the copy that is the other ceiling."""
    longest: int
    """Tokens of the longest document."""
    batch: int
    """Documents in an update."""
    buffer: int
    """Documents in a replay buffer."""
    curve: int
    """Updates whose losses are compared between devices."""
    saved_before: int
    """Updates before the state whose cost is measured,"""
    saved_during: int
    """and after its beginning: enough for it to be written."""
    killed: int
    """Updates of the run that is killed."""
    prompt: int
    """Tokens before those whose decoding is timed."""
    decoded: int
    """Tokens of a text whose decoding is timed."""
    launch: Launch
    """How `evaluate` runs steps by default."""

    @property
    def toy(self) -> bool:
        return self.device.type == "cpu"


LLAMA2_7B = {
    "vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 11_008,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
}  # fmt: skip
SMALL = {
    "vocab_size": 2048, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048,
}  # fmt: skip
TINY = {
    "vocab_size": 320, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
    "initializer_range": 0.1,
}  # fmt: skip
GPU = Scale(
    torch.device("cuda"), LLAMA2_7B, SMALL, product=8192, copied=2**30, longest=2048, batch=8,
    buffer=64, curve=100, saved_before=40, saved_during=300, killed=200,
    prompt=256, decoded=48, launch=Launch(graphs=True, compiled=True),
)  # fmt: skip
TOY = Scale(
    torch.device("cpu"), TINY, TINY, product=64, copied=2**16, longest=32, batch=2,
    buffer=4, curve=4, saved_before=6, saved_during=40, killed=12,
    prompt=8, decoded=8,
    # to make kernels for a CPU takes half a minute a shape
    launch=Launch(graphs=True, compiled=True, how={"backend": "eager"}),
)  # fmt: skip
