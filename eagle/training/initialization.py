"""The first weights of a draft."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from eagle.draft.draft import Draft
from eagle.errors import InputError
from eagle.training.distributed import sum_over_ranks
from eagle.verifier.verifier import Verifier

# Ridge as a share of the mean diagonal of the normal equations: enough to solve them in float32.
RIDGE = 1e-4


class Pairs(NamedTuple):
    """Inputs and targets of the draft at M counted positions, each float32 [M, H]."""

    embeddings: Tensor
    """Of token t + 1."""
    features: Tensor
    """f_t, without noise."""
    targets: Tensor
    """f_{t+1}."""


def initialize_random(draft: Draft, seed: int) -> None:
    """Normal weights with standard deviation `initializer_range`, norms one, biases zero (official
    code)."""
    generator = torch.Generator().manual_seed(seed)
    for module in draft.modules():
        if isinstance(module, nn.Linear):
            initial = torch.randn(module.weight.shape, generator=generator)
            module.weight.data.copy_(initial * draft.config.initializer_range)
            if module.bias is not None:
                module.bias.data.zero_()


def initialize_from_last_layer(draft: Draft, verifier: Verifier) -> None:
    """Take queries, keys, values and the MLP's inner weights from the verifier's last layer.

    That layer reads x / rms(x) * w_in, where x is the residual stream and w_in the weight of its
    norm. The features are x / rms(x) * w_out, with the weight of the final norm. For the same x
    they differ by the factor w_in / w_out, which is multiplied into the weights of queries, keys
    and values and into the norm before the MLP. Unchanged weights would read features as if they
    were the layer's normalized input.

    Raises:
        InputError: the verifier's layer does not have the draft's weights and shapes.
    """
    ours = draft.layers[0]
    theirs = {
        name: (weight.full_tensor() if isinstance(weight, DTensor) else weight).float()
        for name, weight in verifier.layers[-1].state_dict().items()
    }
    final = verifier.decoder.norm.weight.float()
    # a direction whose final norm weight is almost zero does not appear in the features
    visible = final.abs() > 1e-3 * final.abs().mean()
    expected = {name: tensor.shape for name, tensor in ours.state_dict().items()}
    found = {name: tensor.shape for name, tensor in theirs.items()}
    found.pop("input_layernorm.weight", None)
    if expected != found:
        differing = sorted(
            name for name in expected | found if expected.get(name) != found.get(name)
        )
        raise InputError(
            "initialization = last_layer needs a verifier whose layers are Llama's and a draft of "
            f"their shape; these differ: {', '.join(differing)}. Choose least_squares"
        )
    before_attention, before_mlp = (
        torch.where(visible, theirs[f"{norm}.weight"] / final, 0)
        for norm in ("input_layernorm", "post_attention_layernorm")
    )
    for name in ("q_proj", "k_proj", "v_proj"):
        projection = getattr(ours.self_attn, name)
        projection.weight.data.copy_(theirs[f"self_attn.{name}.weight"] * before_attention)
        if projection.bias is not None:
            projection.bias.data.copy_(theirs[f"self_attn.{name}.bias"])
    ours.post_attention_layernorm.weight.data.copy_(before_mlp)
    for name in ("gate_proj", "up_proj"):
        getattr(ours.mlp, name).weight.data.copy_(theirs[f"mlp.{name}.weight"])


def initialize_least_squares(draft: Draft, pairs: Iterable[Pairs]) -> None:
    """Start from the best linear prediction of f_{t+1} from the embedding of token t + 1 and f_t.

    `fc` is the closed-form solution of ridge regression, and the outputs of attention and MLP are
    zero, so that training starts from this prediction and adds to it. Embeddings are small beside
    features (17 times smaller in SmolLM2-135M): from random weights, gradients take long to use
    them, and the normal equations use them at once.

    Args:
        draft: with random weights; queries, keys, values and the MLP's inner weights stay.
        pairs: this process's share; the solution is that for the pairs of all processes.
    """
    layer = draft.layers[0]
    for linear in (layer.self_attn.o_proj, layer.mlp.down_proj):
        linear.weight.data.zero_()
    width = draft.fc.in_features
    gram = torch.zeros(width, width, device=draft.fc.weight.device)
    cross = torch.zeros(width, draft.fc.out_features, device=draft.fc.weight.device)
    for part in pairs:
        inputs = torch.cat([part.embeddings, part.features], dim=-1)  # [M, 2H]
        gram += inputs.T @ inputs
        cross += inputs.T @ part.targets
    sum_over_ranks(gram)
    sum_over_ranks(cross)
    gram.diagonal().add_(RIDGE * gram.diagonal().mean())
    draft.fc.weight.data.copy_(torch.linalg.solve(gram, cross).T)
