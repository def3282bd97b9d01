"""How a draft's weights begin."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, distributed, nn

from eagle.draft import Draft, attend_within_documents

Batch = tuple[Tensor, Tensor, Tensor, Tensor, list[int]]

RIDGE = 1e-4
"""Of the mean diagonal of the normal equations: enough to solve them in float32."""


def initialize_random(draft: Draft, seed: int) -> None:
    """Normal weights, `initializer_range` wide; norms one, biases zero (official code)."""
    generator = torch.Generator().manual_seed(seed)
    for module in draft.modules():
        if isinstance(module, nn.Linear):
            initial = torch.randn(module.weight.shape, generator=generator)
            module.weight.data.copy_(initial * draft.config.initializer_range)
            if module.bias is not None:
                module.bias.data.zero_()


def initialize_least_squares(draft: Draft, batches: Callable[[], Iterable[Batch]]) -> None:
    """Solve for the draft's three output matrices, one after another, in closed form.

    `fc` becomes the best linear prediction of f_{t+1} from the embedding of token t+1 and f_t;
    then `o_proj` the best use of what the attention, and `down_proj` of what the MLP makes with
    their random weights, for what is still missing (ridge regression on random features). The
    features are some twenty times as large as the embeddings in many models, so from random
    weights a gradient takes long to find what the next token's embedding says; the normal
    equations find it at once.

    Args:
        draft: with random weights, of which all but those three matrices stay.
        batches: called three times; gives (embeddings [T, H], features [T, H], counted [M],
            targets [M, H], lengths of the documents in them), float32. Each process gives its
            own part; the solution is that of all parts.
    """
    layer = draft.layers[0]
    solved = (draft.fc, layer.self_attn.o_proj, layer.mlp.down_proj)
    for linear in solved:
        linear.weight.data.zero_()
    for linear in solved:
        width = linear.in_features
        gram = torch.zeros(width, width, device=linear.weight.device)
        cross = torch.zeros(width, linear.out_features, device=linear.weight.device)
        for embeddings, features, counted, targets, lengths in batches():
            inputs, predicted = _input_of(linear, draft, embeddings, features, lengths)
            gram += inputs[counted].T @ inputs[counted]
            cross += inputs[counted].T @ (targets - predicted[counted])
        if distributed.is_initialized():
            distributed.all_reduce(gram)
            distributed.all_reduce(cross)
        gram.diagonal().add_(RIDGE * gram.diagonal().mean())
        linear.weight.data.copy_(torch.linalg.solve(gram, cross).T)


@torch.no_grad()
def _input_of(
    linear: nn.Linear, draft: Draft, embeddings: Tensor, features: Tensor, lengths: list[int]
) -> tuple[Tensor, Tensor]:
    """What reaches `linear` [T, in] while the draft predicts [T, H]."""
    seen = []
    hook = linear.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    positions = torch.cat([torch.arange(n, device=features.device) for n in lengths])
    attend = attend_within_documents(lengths, "sdpa")
    predicted = draft(features, embeddings, positions, attend)
    hook.remove()
    return seen[0].reshape(-1, linear.in_features), predicted
