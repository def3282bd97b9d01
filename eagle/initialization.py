"""How a draft's weights begin."""

from collections.abc import Iterable

import torch
from torch import Tensor, distributed, nn

from eagle.draft import Draft

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


def initialize_least_squares(draft: Draft, pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Begin at the best linear prediction of f_{t+1} from the embedding of token t+1 and f_t.

    `fc` solves the (ridge) least-squares problem, and the layer begins as the identity: what its
    attention and MLP add goes through `o_proj` and `down_proj`, which begin at zero. The features
    are some twenty times as large as the embeddings in many models, so from random weights a
    gradient takes long to find what the next token's embedding says; the normal equations find
    it at once.

    Args:
        draft: with random weights, of which all but `fc`, `o_proj` and `down_proj` stay.
        pairs: inputs [n, 2H] (embedding, then feature) and targets [n, H], in float32. Each
            process gives its own part; the solution is that of all parts.
    """
    width = draft.config.hidden_size
    device = draft.fc.weight.device
    gram = torch.zeros(2 * width, 2 * width, device=device)
    cross = torch.zeros(2 * width, width, device=device)
    for inputs, targets in pairs:
        gram += inputs.T @ inputs
        cross += inputs.T @ targets
    if distributed.is_initialized():
        distributed.all_reduce(gram)
        distributed.all_reduce(cross)
    gram.diagonal().add_(RIDGE * gram.diagonal().mean())
    draft.fc.weight.data.copy_(torch.linalg.solve(gram, cross).T)
    layer = draft.layers[0]
    layer.self_attn.o_proj.weight.data.zero_()
    layer.mlp.down_proj.weight.data.zero_()
