"""Memory and operations of a step, compared with what torch counts."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from eagle.draft.rollout import rollout
from eagle.draft.vocabulary import full_vocabulary
from eagle.errors import InputError
from eagle.training import memory_and_flops
from eagle.training.loss import eagle_loss, teach
from eagle.training.memory_and_flops import (
    check_memory,
    memory_of_step,
    operations,
    operations_of_features,
)
from eagle.training.updates import plan_updates


@pytest.mark.parametrize("steps", [0, 3])
def test_the_memory_of_a_step_is_not_underestimated(draft, steps):
    """Compared with what torch keeps for the backward pass."""
    lengths, kept = [120, 60], {}
    tokens = sum(lengths)

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    inputs = torch.randn(tokens, draft.config.hidden_size)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        list(rollout(draft, inputs, inputs, torch.arange(tokens), lengths, "sdpa", steps))
    weights = {parameter.untyped_storage().data_ptr() for parameter in draft.parameters()}
    activations = sum(size for pointer, size in kept.items() if pointer not in weights)
    estimate = memory_of_step(draft, lengths, steps) - memory_of_step(draft, [], steps)
    assert activations < estimate < 3 * activations


def test_a_micro_step_that_cannot_fit_is_refused_with_the_numbers(draft, make_config, monkeypatch):
    config = make_config(features="cache", epochs=1, gradient_accumulation_steps=1)
    updates, device = plan_updates(config, 2, 2), torch.device("cpu")
    check_memory(config, draft, updates, [300, 700], device)
    monkeypatch.setattr(memory_and_flops, "free_memory", lambda _device: 1e6)
    with pytest.raises(InputError, match=r"of 1,000 tokens needs about .* GB and cpu has 0.0 GB"):
        check_memory(config, draft, updates, [300, 700], device)


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
