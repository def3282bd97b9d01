"""Memory and operations of a step, compared with what torch counts."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from eagle.draft.vocabulary import full_vocabulary
from eagle.errors import InputError
from eagle.tracking import NullTracker
from eagle.training import memory_and_flops
from eagle.training.build import build_trainer
from eagle.training.loss import eagle_loss, teach
from eagle.training.memory_and_flops import (
    check_memory,
    operations,
    operations_of_features,
)


@pytest.mark.parametrize("features", ["cache", "replay"])
def test_what_cannot_fit_is_refused_with_the_numbers(
    verifier, draft, tokens, make_config, tmp_path, monkeypatch, features
):
    monkeypatch.setenv("EAGLE_CACHE", str(tmp_path))
    config = make_config(
        features=features, micro_batch_size=6, gradient_accumulation_steps=1, replay_documents=7
    )
    trainer = build_trainer(
        config, draft, verifier, "hash", tokens, tokens, tmp_path, NullTracker()
    )
    lengths = tokens.bounds.diff().tolist()
    sizes = trainer.sizes
    of_updates = [sum(lengths[d] for d in update.documents) for update in trainer.updates]
    assert sum(sizes.lengths) == max(of_updates)
    if features == "cache":
        assert sizes.kept_tokens == 2 * sum(lengths)
        assert sizes.taught_tokens == 2 * int(tokens.taught().sum())
    else:
        buffers = [sum(lengths[d] for d in update.buffer) for update in trainer.updates]
        assert sizes.kept_tokens == max(buffers) + sum(lengths[:7])
    assert sizes.verifier_weights == sum(weight.numel() for weight in verifier.parameters())
    device = torch.device("cpu")
    assert check_memory(sizes, device) == trainer.memory
    monkeypatch.setattr(memory_and_flops, "free_memory", lambda _device: 1e6)
    needs = replace(sizes, draft_weights=10**9)  # more than is in use by now
    with pytest.raises(InputError, match=r"training on micro-steps of .* needs about 28,\d{3} MB"):
        check_memory(needs, device)


def mixed(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """In place of attention, whose operations are not counted: a gradient reaches all three."""
    groups = query.shape[1] // key.shape[1]
    return query + (key + value).repeat_interleave(groups, dim=1)


def test_operations_are_those_of_the_products(verifier, draft):
    hidden, vocabulary = verifier.head.shape[1], full_vocabulary(verifier.head)
    tokens = masked = 64
    inputs, target = torch.randn(2, tokens, hidden)
    with FlopCounterMode(display=False) as counted:
        predicted = draft(inputs, inputs, torch.arange(tokens), mixed)
        teacher = teach(target, vocabulary)
        before_loss = counted.get_total_flops()
        eagle_loss(predicted, target, teacher, vocabulary).classification.backward()
    once = 4 * len(verifier.head) * hidden * masked  # the teacher's two products
    # the inputs of the first product have no gradient
    spared = 2 * draft.fc.weight.numel() * tokens
    ours = operations(draft, len(verifier.head), 0, tokens, masked)
    assert counted.get_total_flops() == ours + once - spared
    assert before_loss > once
    layers = operations_of_features(verifier, len(verifier.head), tokens, masked) - once
    with FlopCounterMode(display=False) as counted:
        verifier.features(torch.zeros(1, tokens, dtype=torch.int64))
    heads = verifier.config.num_attention_heads * verifier.config.head_dim
    attention = verifier.config.num_hidden_layers * 4 * heads * tokens**2
    assert counted.get_total_flops() in (layers, layers + attention)  # as torch's version has it
