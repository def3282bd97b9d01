"""How a draft's weights begin."""

from collections.abc import Iterable

import torch
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor

from eagle.draft.draft import Draft
from eagle.errors import InputError
from eagle.verifier.verifier import Verifier

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


def initialize_from_last_layer(draft: Draft, verifier: Verifier) -> None:
    """Take queries, keys, values and the MLP's inner weights from the verifier's last layer.

    That layer reads x / rms(x) * w_in, the features are x / rms(x) * w_out with the final norm's
    weight: for the same residual stream x they differ by w_in / w_out alone, which goes into the
    weights (queries, keys and values) and into the norm before the MLP. Copied as they stand, they
    would read features as if they were a layer's input.

    Raises:
        InputError: the verifier's layer is not of the draft's form.
    """
    ours = draft.layers[0]
    theirs = {
        name: (weight.full_tensor() if isinstance(weight, DTensor) else weight).float()
        for name, weight in verifier.model.base_model.layers[-1].state_dict().items()
    }
    final = verifier.model.base_model.norm.weight.float()
    # where the final norm hides a direction, features do not show it
    shown = final.abs() > 1e-3 * final.abs().mean()
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
        torch.where(shown, theirs[f"{norm}.weight"] / final, 0)
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
