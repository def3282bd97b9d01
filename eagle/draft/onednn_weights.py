"""Weights in the memory layout in which oneDNN multiplies fastest.

torch multiplies bfloat16 on a CPU with oneDNN, which reads weights in blocks. It reorders weights
that lie in rows into blocks in every call. Decoding multiplies few rows at a time, so it pays that
for each token. Weights reordered once give the same numbers in two thirds of the time. Other
devices and precisions gain nothing, and their weights stay as they are.
"""

import torch
from torch import Tensor, nn


def reorder_weight(weight: Tensor) -> Tensor:
    """weight [outputs, inputs] in oneDNN's layout, for `linear`; itself if that does not apply."""
    fits = weight.device.type == "cpu" and weight.dtype == torch.bfloat16
    if not fits or weight.is_mkldnn or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return weight
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach(), 1)


def linear(states: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """states [..., inputs] @ weight.T + bias, for a weight in either layout."""
    if weight.is_mkldnn:
        return torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")
    return nn.functional.linear(states, weight, bias)


def reorder_linear_layers(model: nn.Module, keep: nn.Module | None = None) -> None:
    """Replace the linear layers of a model by ones with reordered weights, where that applies.

    Args:
        keep: a layer whose rows stay readable as `weight`, such as the head.
    """
    for module in list(model.modules()):
        for name, layer in list(module.named_children()):
            if isinstance(layer, nn.Linear):
                reordered = reorder_weight(layer.weight)
                if reordered is not layer.weight:
                    setattr(module, name, _ReorderedLinear(layer, reordered, layer is keep))


class _ReorderedLinear(nn.Module):
    def __init__(self, layer: nn.Linear, reordered: Tensor, readable: bool):
        super().__init__()
        self.reordered, self.bias = reordered, layer.bias
        if readable:
            self.weight = layer.weight

    def forward(self, states: Tensor) -> Tensor:
        return linear(states, self.reordered, self.bias)
