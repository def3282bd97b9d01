"""Attention within each of several documents that lie side by side in one sequence.

Shapes: T tokens of N documents side by side, A heads, G key-value heads, D head size.
"""

import functools
import importlib.util
import inspect
from collections.abc import Callable, Container, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface

from eagle.errors import InputError

BACKENDS = {
    "eager": "the mask is written out, for reference",
    "sdpa": "torch's fused kernels, a document at a time",
    "varlen": "torch's FlashAttention, one kernel for all documents",
    "flash_attention_2": "the flash-attn package, one kernel for all documents",
}
"""What `train.attn` becomes, and what that is."""
PACKED = ("varlen", "flash_attention_2")
"""The backends with one kernel for all documents."""
# Arguments with which a model asks for more than scaled, causal attention within a window.
UNKNOWN_TO_THE_KERNELS = ("softcap", "s_aux", "position_bias")


def switch_off_cudnn_attention() -> None:
    """Keep torch's `scaled_dot_product_attention` from choosing cuDNN, in this whole process.

    cuDNN plans on the host for every new shape, for 50 ms and more. Documents and growing texts
    have a new shape each, so that on a Hopper GPU nearly all of the time would be planning.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


def choose_attention(
    asked: str, device: torch.device, dtypes: Container[torch.dtype], head_size: int
) -> tuple[str, str]:
    """What `train.attn` is on this device.

    Args:
        dtypes: in which verifier and draft compute.
        head_size: of the draft.

    Returns:
        One of BACKENDS, and why it is not `asked` (empty where it is).

    Raises:
        InputError: one kernel for all documents is asked for, and there is none here.
    """
    if asked not in ("auto", *PACKED):
        return asked, ""
    lacking = _without_flash_attention(device, dtypes, head_size)
    if asked == "auto":
        return ("sdpa", lacking) if lacking else ("varlen", "16-bit products on a GPU")
    if lacking:
        raise InputError(f"--attn = {asked} (train.attn): {lacking}; choose auto or sdpa")
    if asked == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        return "varlen", "the flash-attn package is not installed, and torch has the same kernel"
    return asked, ""


def _without_flash_attention(
    device: torch.device, dtypes: Container[torch.dtype], head_size: int
) -> str | None:
    """Why FlashAttention does not run here; None where it does."""
    if device.type != "cuda":
        return "FlashAttention needs a GPU, and none is in use"
    if torch.float32 in dtypes:
        return "FlashAttention computes in 16 bits, and verifier or draft compute in float32"
    heads = torch.zeros(1, 1, 8, head_size, device=device, dtype=torch.bfloat16, requires_grad=True)
    params = torch.backends.cuda.SDPAParams(heads, heads, heads, None, 0.0, True, False)
    # torch pads other head sizes for `scaled_dot_product_attention`, but not for packed documents
    if head_size % 8 or not torch.backends.cuda.can_use_flash_attention(params):
        return (
            f"torch has no FlashAttention for heads of {head_size} on "
            f"{torch.cuda.get_device_name(device)}"
        )
    return None


Kernel = Callable[..., Tensor]
"""Attention within documents: (query [T, A, D], key [T, G, D], value [T, G, D], bounds int32
[N + 1], longest, scale or None, window or None) to [T, A, D]."""


def varlen_arguments(takes: Container[str], window: int | None) -> dict:
    """The arguments of torch's `varlen_attn` that say what a token sees, in the form it takes.

    Args:
        takes: the names of its parameters: torch 2.13 has `window_size`, older versions may have
            `is_causal` in its place.
        window: how far back a token sees, itself included; None: to the beginning.
    """
    if "window_size" in takes:
        return {"window_size": (-1 if window is None else window - 1, 0)}
    if window is not None:
        raise NotImplementedError("this torch's varlen_attn has no window")
    return {"is_causal": True}


def torch_varlen(
    query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, longest: int,
    scale: float | None = None, window: int | None = None,
) -> Tensor:  # fmt: skip
    """torch's FlashAttention over packed documents: a Kernel, for CUDA and 16 bits."""
    from torch.nn.attention.varlen import varlen_attn  # it imports the compiler: a second

    takes = inspect.signature(varlen_attn).parameters
    arguments = varlen_arguments(takes, window if window and window < longest else None)
    if "enable_gqa" in takes:
        arguments["enable_gqa"] = True
    else:
        groups = query.shape[1] // key.shape[1]
        key, value = (states.repeat_interleave(groups, dim=1) for states in (key, value))
    return varlen_attn(
        query, key, value, bounds, bounds, longest, longest, scale=scale, **arguments
    )


def _package_varlen(
    query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, longest: int,
    scale: float | None = None, window: int | None = None,
) -> Tensor:  # fmt: skip
    from flash_attn import flash_attn_varlen_func

    return flash_attn_varlen_func(
        query, key, value, bounds, bounds, longest, longest, softmax_scale=scale, causal=True,
        window_size=(-1 if window is None else window - 1, 0),
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )  # fmt: skip


def one_by_one(
    query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, longest: int,
    scale: float | None = None, window: int | None = None,
) -> Tensor:  # fmt: skip
    """The same with torch's fused kernels, a document at a time: any device and precision."""
    del longest
    lengths = bounds.diff().tolist()
    query, key, value = (states.transpose(0, 1)[None] for states in (query, key, value))
    return attend_one_by_one(query, key, value, lengths, scale, window)[0].transpose(0, 1)


KERNELS: dict[str, Kernel] = {
    "varlen": torch_varlen,
    "flash_attention_2": _package_varlen,
    "sdpa": one_by_one,
}


def attend_one_by_one(
    query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int],
    scale: float | None = None, window: int | None = None,
) -> Tensor:  # fmt: skip
    """Attention of query [1, A, T, D] to key and value [1, G, T, D]: [1, A, T, D]."""
    parts = zip(*(states.split(lengths, dim=2) for states in (query, key, value)), strict=True)
    attended = []
    for part in parts:
        length, mask = part[0].shape[2], None
        if window is not None and length > window:
            everything = torch.ones(length, length, dtype=torch.bool, device=query.device)
            mask = everything.tril().triu(1 - window)
        attended.append(
            functional.scaled_dot_product_attention(
                *part, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=True
            )
        )
    return torch.cat(attended, dim=2)


def documents_bounds(lengths: Sequence[int], device: torch.device) -> Tensor:
    """Where documents of these lengths begin and end in one sequence, int32 [N + 1]."""
    bounds = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    return bounds.to(device, non_blocking=True)


def implementation(backend: str) -> str:
    """transformers' name of the attention within packed documents by this backend."""
    return f"eagle_{KERNELS[backend].__name__.strip('_')}"


def _as_transformers_calls_it(
    kernel: Kernel,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    cu_seq_lens_q: Tensor,
    max_length_q: int,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **others: object,
) -> tuple[Tensor, None]:
    """Attention of query [1, A, T, D] to key and value [1, G, T, D]: [1, T, A, D].

    Raises:
        NotImplementedError: the model asks for more than the kernel does.
    """
    asked = [name for name in UNKNOWN_TO_THE_KERNELS if others.get(name) is not None]
    if attention_mask is not None or not getattr(module, "is_causal", True):
        asked.append("a mask of its own")
    if asked:
        raise NotImplementedError(f"its attention takes {', '.join(asked)}")
    size = value.shape[-1]  # latent attention has smaller values
    value = functional.pad(value, (0, query.shape[-1] - size))
    states = (states[0].transpose(0, 1) for states in (query, key, value))  # [T, A or G, D]
    attended = kernel(*states, cu_seq_lens_q, max_length_q, scaling, sliding_window)
    return attended[None, ..., :size], None


for _backend, _kernel in KERNELS.items():
    AttentionInterface.register(
        implementation(_backend), functools.partial(_as_transformers_calls_it, _kernel)
    )
