"""What a run writes while it trains: states and drafts, in a thread beside training."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eagle.errors import InputError, said_plainly
from eagle.training.on_disk import newest_state


class BackgroundWriter:
    """Writes one thing at a time, from a copy that training does not change.

    On a GPU the copy goes to pinned memory on a stream of its own: training goes on meanwhile, and
    waits for the copy only before the optimizer changes the weights. On a CPU it is a clone.

    torch.distributed.checkpoint also saves beside training. It writes a folder without a hash, and
    divides among processes what is whole on each of them here, so it would give nothing.
    """

    def __init__(self, run_folder: Path, optimizer: torch.optim.Optimizer, device: torch.device):
        self.run_folder = run_folder
        self.thread = ThreadPoolExecutor(1)
        self.in_hand: Future[None] | None = None
        self.stream = None
        if device.type == "cuda":
            self.stream = torch.cuda.Stream(device)
            optimizer.register_step_pre_hook(
                lambda *_: torch.cuda.current_stream().wait_stream(self.stream)
            )

    def __enter__(self) -> "BackgroundWriter":
        return self

    def __exit__(self, kind: type | None, *_error: object) -> None:
        """Wait for what is in hand. Raises: InputError: it could not be written."""
        self.thread.shutdown()
        if kind is None:
            self.check()

    def check(self) -> None:
        """Raises: InputError: what was to be written last could not be."""
        if self.in_hand and self.in_hand.done():
            self.in_hand.result()

    def write(self, what: str, content: dict, write: Callable[[dict], None]) -> None:
        """Copy `content` and let `write` write the copy beside training.

        What is in hand is finished first, so that there is one copy at a time.

        Args:
            what: for the message of an error.
            content: tensors, and lists whose items do not change, in dictionaries of any depth.

        Raises:
            InputError: what was in hand could not be written.
        """
        if self.in_hand:
            self.in_hand.result()
        copied = None
        if self.stream is None:
            copy = _copy(content, pinned=False)
        else:
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                copy = _copy(content, pinned=True)
            copied = self.stream.record_event()
        self.in_hand = self.thread.submit(self._write, what, copy, copied, write)

    def _write(
        self,
        what: str,
        copy: dict,
        copied: torch.cuda.Event | None,
        write: Callable[[dict], None],
    ) -> None:
        if copied is not None:
            copied.synchronize()
        try:
            write(copy)
        except OSError as error:
            raise InputError(
                f"{what} ({_bytes(copy) / 1e6:,.0f} MB) cannot be written: "
                f"{said_plainly(error)}: it goes on from {newest_state(self.run_folder)}"
            ) from None


def _copy(value: Any, pinned: bool) -> Any:
    if isinstance(value, dict):
        return {name: _copy(part, pinned) for name, part in value.items()}
    if isinstance(value, list):
        return list(value)
    if isinstance(value, Tensor):
        copy = torch.empty_like(value, device="cpu", pin_memory=pinned)
        return copy.copy_(value, non_blocking=True)
    return value


def _bytes(value: Any) -> int:
    if isinstance(value, dict):
        return sum(_bytes(part) for part in value.values())
    return value.nbytes if isinstance(value, Tensor) else 0
