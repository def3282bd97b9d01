"""Weights in the layout that this CPU multiplies fastest by.

oneDNN, behind torch's bfloat16 products on a CPU, reads weights in blocks; from rows it makes them
anew in every call, which decoding, a product with few rows, pays for each token. Laid out once, the
same numbers come out of the same products in two thirds of the time. Where there is nothing to
gain (another device or precision), everything stays as it is.
"""

import torch
from torch import Tensor, nn


def packed(weight: Tensor) -> Tensor:
    """weight [outputs, inputs] for `product`; itself where packing does not apply."""
    fits = weight.device.type == "cpu" and weight.dtype == torch.bfloat16
    if not fits or weight.is_mkldnn or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return weight
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach(), 1)


def product(states: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """states [..., inputs] @ weight.T + bias."""
    if weight.is_mkldnn:
        return torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")
    return nn.functional.linear(states, weight, bias)


def pack(model: nn.Module, keep: nn.Module | None = None) -> None:
    """Lay out the weights of all linear layers anew; those of `keep` stay readable as well."""
    for module in list(model.modules()):
        for name, layer in list(module.named_children()):
            if isinstance(layer, nn.Linear):
                setattr(module, name, _PackedLinear(layer, layer is keep))


class _PackedLinear(nn.Module):
    def __init__(self, layer: nn.Linear, readable: bool):
        super().__init__()
        self.packed, self.bias = packed(layer.weight), layer.bias
        if readable:
            self.weight = layer.weight

    def forward(self, states: Tensor) -> Tensor:
        return product(states, self.packed, self.bias)
