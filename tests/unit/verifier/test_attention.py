"""Attention within documents: every kernel's arguments and numbers, and which one is chosen."""

import inspect
import math

import pytest
import torch
from torch.nn.attention import varlen

from eagle.draft.draft import attend_within_documents
from eagle.errors import InputError
from eagle.verifier import attention
from eagle.verifier.attention import (
    choose_attention,
    documents_bounds,
    one_by_one,
    torch_varlen,
    varlen_arguments,
)
from eagle.verifier.verifier import Verifier

CPU, BF16 = torch.device("cpu"), {torch.bfloat16}
LENGTHS = [5, 1, 12]


def states(seed: int = 0, heads: int = 4, groups: int = 2) -> list[torch.Tensor]:
    """Query [T, A, D], key and value [T, G, D]."""
    generator = torch.Generator().manual_seed(seed)
    counts = (heads, groups, groups)
    return [torch.randn(sum(LENGTHS), n, 8, generator=generator).requires_grad_() for n in counts]


def written_out(query, key, value, lengths, window=None, scale=None):
    """The reference, with a mask over all pairs of tokens.

    Returns:
        Attention's output [T, A, D], its weights [A, T, T], and the logsumexp of scores [A, T].
    """
    groups = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
    document = torch.repeat_interleave(torch.tensor(lengths))
    ages = torch.arange(len(document))[:, None] - torch.arange(len(document))
    seen = (document[:, None] == document) & (ages >= 0) & (ages < (window or len(document)))
    scores = torch.einsum("tad,sad->ats", query, key) * (scale or 1 / math.sqrt(query.shape[-1]))
    scores = scores.masked_fill(~seen, float("-inf"))
    weights = scores.softmax(-1)
    return torch.einsum("ats,sad->tad", weights, value), weights, scores.logsumexp(-1)


@pytest.fixture
def varlen_on_a_cpu():
    """torch's operator with kernels for CPUs, which it lacks: the reference, as documented."""

    def forward(query, key, value, starts, _starts, _max_q, _max_k, _causal, scale, sees, *_more):
        back = None if sees[0] == -1 else sees[0] + 1
        out, _, lse = written_out(query, key, value, starts.diff().tolist(), back, scale)
        return out, lse, torch.zeros(2, dtype=torch.uint64)

    def backward(
        gradient, query, key, value, _out, _lse, starts, _starts, _max_q, _max_k, _causal, _rng,
        scale, sees,
    ):  # fmt: skip
        back = None if sees[0] == -1 else sees[0] + 1
        _, weights, _ = written_out(query, key, value, starts.diff().tolist(), back, scale)
        groups = query.shape[1] // key.shape[1]
        of_weights = torch.einsum("tad,sad->ats", gradient, value.repeat_interleave(groups, 1))
        of_scores = weights * (of_weights - (of_weights * weights).sum(-1, keepdim=True))
        of_scores *= scale or 1 / math.sqrt(query.shape[-1])
        return (
            torch.einsum("ats,sad->tad", of_scores, key.repeat_interleave(groups, 1)),
            torch.einsum("ats,tad->sad", of_scores, query).unflatten(1, (-1, groups)).sum(2),
            torch.einsum("ats,tad->sad", weights, gradient).unflatten(1, (-1, groups)).sum(2),
        )

    varlen._varlen_attn.register_kernel("cpu")(forward)
    varlen._varlen_attn_backward.register_kernel("cpu")(backward)


@pytest.mark.parametrize("window", [None, 3, 100])
@pytest.mark.parametrize("kernel", [one_by_one, torch_varlen])
def test_each_kernel_is_the_mask_written_out(kernel, window, varlen_on_a_cpu):
    ours, plain = states(), states()
    bounds = documents_bounds(LENGTHS, CPU)
    attended = kernel(*ours, bounds, max(LENGTHS), 0.3, window)
    expected, *_ = written_out(*plain, LENGTHS, window, 0.3)
    torch.testing.assert_close(attended, expected, atol=1e-6, rtol=1e-5)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    for found, reference in zip(
        torch.autograd.grad((attended * weights).sum(), ours),
        torch.autograd.grad((expected * weights).sum(), plain),
        strict=True,
    ):
        torch.testing.assert_close(found, reference, atol=1e-6, rtol=1e-5)


def test_the_draft_attends_alike_with_every_backend(varlen_on_a_cpu):
    query, key, value = (part.transpose(0, 1)[None] for part in states())
    expected = attend_within_documents(LENGTHS, "eager")(query, key, value)
    for backend in ("sdpa", "varlen"):
        attended = attend_within_documents(LENGTHS, backend)(query, key, value)
        torch.testing.assert_close(attended, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("window", [None, 3])
def test_the_installed_torch_takes_the_arguments(window):
    """On the meta device, where torch itself checks them, forward and backward."""
    query, key, value = (part.detach().to("meta").requires_grad_() for part in states())
    bounds = documents_bounds(LENGTHS, torch.device("meta"))
    attended = torch_varlen(query, key, value, bounds, max(LENGTHS), window=window)
    assert attended.shape == query.shape
    attended.sum().backward()
    assert key.grad.shape == key.shape


def test_the_arguments_are_those_of_the_versions_of_torch():
    takes = inspect.signature(varlen.varlen_attn).parameters
    assert set(varlen_arguments(takes, 3)) <= set(takes)
    assert varlen_arguments({"window_size"}, None) == {"window_size": (-1, 0)}
    assert varlen_arguments({"window_size"}, 3) == {"window_size": (2, 0)}
    assert varlen_arguments({"is_causal"}, None) == {"is_causal": True}
    with pytest.raises(NotImplementedError, match="no window"):
        varlen_arguments({"is_causal"}, 3)


def test_what_a_machine_without_a_gpu_takes():
    assert choose_attention("auto", CPU, BF16, 64) == (
        "sdpa", "FlashAttention needs a GPU, and none is in use",
    )  # fmt: skip
    for asked in ("eager", "sdpa"):
        assert choose_attention(asked, CPU, BF16, 64) == (asked, "")
    for asked in ("varlen", "flash_attention_2"):
        with pytest.raises(InputError, match=f"--attn = {asked} .*needs a GPU.*choose auto or"):
            choose_attention(asked, CPU, BF16, 64)


def test_what_a_gpu_takes(monkeypatch):
    """Its abilities stand in for it."""
    gpu = torch.device("cuda")
    for lacking in ("float32", "heads of 20"):
        monkeypatch.setattr(attention, "_without_flash_attention", lambda *_, why=lacking: why)
        assert choose_attention("auto", gpu, BF16, 64) == ("sdpa", lacking)
    monkeypatch.setattr(attention, "_without_flash_attention", lambda *_: None)
    assert choose_attention("auto", gpu, BF16, 64)[0] == "varlen"
    assert choose_attention("flash_attention_2", gpu, BF16, 64) == (
        "varlen", "the flash-attn package is not installed, and torch has the same kernel",
    )  # fmt: skip
    assert choose_attention("varlen", gpu, BF16, 64) == ("varlen", "")
    assert choose_attention("sdpa", gpu, BF16, 64) == ("sdpa", "")


def test_every_verifier_switches_off_cudnns_attention(tiny_verifier):
    torch.backends.cuda.enable_cudnn_sdp(True)
    Verifier.load(tiny_verifier, torch.float32, CPU)
    assert not torch.backends.cuda.cudnn_sdp_enabled()


@pytest.mark.gpu
@pytest.mark.parametrize("window", [None, 3])
def test_torchs_kernel_on_a_gpu_is_the_mask_written_out(window):
    gpu = torch.device("cuda")
    assert choose_attention("auto", gpu, BF16, 64)[0] == "varlen"
    plain = states()
    ours = [part.detach().to(gpu, torch.bfloat16).requires_grad_() for part in plain]
    attended = torch_varlen(*ours, documents_bounds(LENGTHS, gpu), max(LENGTHS), window=window)
    expected, *_ = written_out(*plain, LENGTHS, window)
    torch.testing.assert_close(attended.float().cpu(), expected, atol=3e-2, rtol=3e-2)
    gradients = torch.autograd.grad(attended.sum(), ours)
    for found, reference in zip(gradients, torch.autograd.grad(expected.sum(), plain), strict=True):
        torch.testing.assert_close(found.float().cpu(), reference, atol=6e-2, rtol=6e-2)
