"""How a draft's weights begin."""

from collections.abc import Iterable

import torch
from torch import Tensor, distributed, nn

from eagle.draft import Draft

Pairs = tuple[Tensor, Tensor, Tensor]

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


def initialize_least_squares(draft: Draft, pairs: Iterable[Pairs]) -> None:
    """Begin at the best linear prediction of f_{t+1} from the embedding of token t+1 and f_t.

    `fc` is solved for in closed form (ridge regression) and the outputs of attention and MLP are
    zero, so that training starts from that prediction and adds to it. From random weights a
    gradient takes long to find what the next token's embedding says, which is small beside the
    features (17 times smaller in SmolLM2-135M); the normal equations find it at once.

    Args:
        draft: with random weights; queries, keys, values and the MLP's inner ones stay.
        pairs: embeddings, features and targets, each float32 [M, H]. Each process gives its own
            part; the solution is that of all parts.
    """
    layer = draft.layers[0]
    for linear in (layer.self_attn.o_proj, layer.mlp.down_proj):
        linear.weight.data.zero_()
    width = draft.fc.in_features
    gram = torch.zeros(width, width, device=draft.fc.weight.device)
    cross = torch.zeros(width, draft.fc.out_features, device=draft.fc.weight.device)
    for embeddings, features, targets in pairs:
        inputs = torch.cat([embeddings, features], dim=-1)  # [M, 2H]
        gram += inputs.T @ inputs
        cross += inputs.T @ targets
    if distributed.is_initialized():
        distributed.all_reduce(gram)
        distributed.all_reduce(cross)
    gram.diagonal().add_(RIDGE * gram.diagonal().mean())
    draft.fc.weight.data.copy_(torch.linalg.solve(gram, cross).T)
