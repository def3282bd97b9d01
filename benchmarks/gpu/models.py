"""Random verifiers, drafts and documents, made on the device where they are used."""

import random

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from eagle.draft.draft import Draft, draft_config
from eagle.tokens.token_set import TokenSet
from eagle.verifier.admission import key_value_shapes
from eagle.verifier.verifier import Verifier

STOP = 2


def random_verifier(
    shape: dict, device: torch.device, dtype: torch.dtype = torch.bfloat16
) -> Verifier:
    """A Llama with random weights, the same in every process.

    Args:
        shape: its config.
    """
    torch.manual_seed(0)
    with device:
        model = AutoModelForCausalLM.from_config(LlamaConfig(**shape), dtype=dtype)
    return Verifier(model, [STOP], key_value_shapes(model.config))


def random_draft(verifier: Verifier) -> Draft:
    """A draft of the verifier's shape with random float32 weights."""
    with verifier.head.device:
        return Draft(draft_config(None, verifier.config))


def half_right_pair(
    shape: dict, device: torch.device, dtype: torch.dtype
) -> tuple[Verifier, Draft]:
    """A verifier with large embeddings, whose next token follows mostly from the newest one, and
    with a large head, which gives clear choices; and a draft that returns the embedding, so that
    many of its tokens are accepted and many are not."""
    verifier = random_verifier(shape, device, dtype)
    verifier.embedding.mul_(10)
    verifier.head.mul_(10)
    draft = random_draft(verifier)
    for parameter in draft.parameters():
        parameter.data.zero_()
    size = verifier.config.hidden_size
    draft.fc.weight.data[:, :size] = torch.eye(size)
    return verifier, draft.cast(dtype)


def random_documents(count: int, vocabulary: int, longest: int) -> TokenSet:
    """Lengths like ShareGPT's where `longest` is 2048: log-normal, median near 900, cut there.

    The assistant writes 70% of each. With other values of `longest` all lengths are in proportion.
    """
    generator = random.Random(0)
    unit = longest / 2048
    lengths = [
        max(int(32 * unit), min(longest, int(unit * generator.lognormvariate(6.8, 0.8))))
        for _ in range(count)
    ]
    total = sum(lengths)
    mask = torch.ones(total, dtype=torch.uint8)
    bounds = torch.tensor([0, *lengths]).cumsum(0)
    for start, length in zip(bounds[:-1].tolist(), lengths, strict=True):
        mask[start : start + int(0.3 * length)] = 0
    ids = torch.randint(
        3, vocabulary, (total,), dtype=torch.int32, generator=torch.Generator().manual_seed(0)
    )
    return TokenSet(ids, mask, bounds)
