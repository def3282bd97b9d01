"""Steps captured as CUDA graphs: the device runs all kernels of a step without the host.

A decoding step is a thousand small kernels, which a host launches more slowly than a GPU runs them.
"""

from collections.abc import Callable, Hashable
from typing import TypeVar

import torch

Output = TypeVar("Output")
WARM_UPS = 2
"""Runs before a capture: libraries and kernels are loaded in the first."""


class Graphs:
    """Captured steps, each under a key."""

    def __init__(self, device: torch.device):
        self.device = device
        self.captured: dict[Hashable, tuple[torch.cuda.CUDAGraph, object]] = {}
        self.pool: tuple[int, int] | None = None
        """The memory that all graphs share: only one runs at a time."""

    def capture(
        self, key: Hashable, reset: Callable[[], None], step: Callable[[], Output]
    ) -> Output:
        """Capture a step. Returns what each `replay` writes anew, in the same place.

        It has been replayed once, so that other steps can be captured that read it.

        Args:
            reset: makes room for one step, before each run.
            step: reads and writes tensors that stay where they are. It also runs before it is
                captured, so what it writes is not yet of use.

        Raises:
            RuntimeError: it waits for the device, or does something else that no graph can hold.
        """
        graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        before = torch.cuda.get_sync_debug_mode()
        with torch.cuda.stream(stream):
            for run in range(WARM_UPS):
                reset()
                # the last one raises where a capture would break off
                torch.cuda.set_sync_debug_mode("error" if run == WARM_UPS - 1 else before)
                try:
                    step()
                finally:
                    torch.cuda.set_sync_debug_mode(before)
        torch.cuda.current_stream(self.device).wait_stream(stream)
        with torch.cuda.graph(graph, pool=self.pool):
            output = step()
        self.pool = graph.pool()
        self.captured[key] = graph, output
        reset()
        graph.replay()  # a capture computes nothing
        return output

    def replay(self, key: Hashable) -> object:
        """Run a captured step. Returns its output."""
        graph, output = self.captured[key]
        graph.replay()
        return output
