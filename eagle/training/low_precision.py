"""A draft whose products run in 16 bits over float32 weights, which are cast once an update."""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from eagle.draft.draft import Attend, Draft


class LowPrecisionDraft:
    """Calls a draft with copies of its linear layers' weights in another precision.

    It is what autocast computes, number for number: products in `dtype`, the norm's weight and all
    gradients in float32. But autocast casts a weight at each use, and this one in `refresh` alone.
    """

    def __init__(self, draft: Draft, dtype: torch.dtype):
        """Args: draft: with float32 weights, which stay the ones that are trained."""
        self.draft, self.dtype = draft, dtype
        self.weights = {
            f"{name}.{kind}": weight
            for name, module in draft.named_modules()
            if isinstance(module, nn.Linear)
            for kind, weight in module.named_parameters(recurse=False)
        }
        self.copies = [weight.detach().to(dtype) for weight in self.weights.values()]

    @torch.no_grad()
    def refresh(self) -> None:
        """Cast the weights again, after they have changed."""
        torch._foreach_copy_(self.copies, list(self.weights.values()))

    def __call__(
        self, features: Tensor, embeddings: Tensor, positions: Tensor, attend: Attend
    ) -> Tensor:
        """As `Draft.forward`, with a result in `dtype`."""
        pairs = zip(self.weights.items(), self.copies, strict=True)
        copies = {name: _Copy.apply(weight, copy) for (name, weight), copy in pairs}
        inputs = (features.to(self.dtype), embeddings.to(self.dtype), positions, attend)
        return functional_call(self.draft, copies, inputs)


class _Copy(torch.autograd.Function):
    """The copy of a weight in the weight's place; its gradient is the weight's."""

    @staticmethod
    def forward(ctx, weight: Tensor, copy: Tensor) -> Tensor:
        ctx.dtype = weight.dtype
        return copy.detach()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.to(ctx.dtype), None
