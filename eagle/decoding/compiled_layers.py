"""The verifier's layers, compiled for the steps of decoding.

Norms, rotary embeddings, activations and sums stand between a layer's products, a kernel each, and
keep a GPU busy although they read and write little. Compiled, they are few.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn

from eagle.decoding.kv_cache import KeyValueCache
from eagle.verifier.verifier import Verifier

# Fused kernels keep every rounding to 16 bits that separate kernels make.
INDUCTOR = {"backend": "inductor", "options": {"emulate_precision_casts": True}}
MOST_COMPILATIONS = 256
"""For so many shapes of steps is a layer compiled. Beyond it torch raises an error."""


class CompiledLayers:
    """Compiles a decoder layer for every shape of a step; layers of one kind share the code.

    Args:
        how: arguments of `torch.compile`.
    """

    def __init__(self, verifier: Verifier, how: dict = INDUCTOR):
        self.layers = verifier.layers
        torch._dynamo.config.recompile_limit = MOST_COMPILATIONS
        # all of a layer or nothing: what breaks off in the middle would be slower than no compiler
        self.run = torch.compile(_run_layer, fullgraph=True, dynamic=False, **how)

    @contextmanager
    def in_use(self, cache: KeyValueCache) -> Iterator[None]:
        """Let the model run its layers compiled, with this cache."""
        for layer, part in zip(self.layers, cache.layers, strict=True):
            layer.forward = partial(self._forward, layer, cache, part)
        try:
            yield
        finally:
            for layer in self.layers:
                del layer.forward

    def _forward(
        self, layer: nn.Module, cache: KeyValueCache, part: object, *arguments, **keywords
    ) -> object:
        """A layer that gets its own part of the cache in place of all parts.

        Code that picks a part by the layer's number would be compiled anew for each layer.
        """
        arguments = [part if value is cache else value for value in arguments]
        keywords = {name: part if v is cache else v for name, v in keywords.items()}
        return self.run(layer, *arguments, **keywords)


def _run_layer(layer: nn.Module, *arguments, **keywords) -> object:
    return type(layer).forward(layer, *arguments, **keywords)
