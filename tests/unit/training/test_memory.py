"""The memory of training in numbers, compared with what torch keeps."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from eagle.draft.draft import Draft, draft_config
from eagle.draft.rollout import rollout
from eagle.draft.vocabulary import full_vocabulary
from eagle.training.initialization import initialize_random
from eagle.training.loss import eagle_loss, teach
from eagle.training.low_precision import LowPrecisionDraft
from eagle.training.memory import (
    Sizes,
    as_line,
    gpu_blocks,
    kept_for_backward,
    memory_by_part,
)
from eagle.verifier.verifier import Verifier
from tests.conftest import ROOT
from tests.tiny import make_verifier

# Llama-2-7B on a GPU: 8 documents of 1,024 tokens an update, replay buffers of 256.
SEVEN_BILLION = Sizes(
    device="cuda", threads=1,
    verifier_weights=6_738_000_000, verifier_bytes=2, verifier_inner=11_008,
    vocabulary=32_000, head_bytes=2, softmax_vocabulary=32_000,
    blocks=gpu_blocks(85_000_000_000), hidden=4096,
    draft_weights=236_000_000, draft_inner=11_008, draft_keys=4096, compute_bytes=2,
    rollout_steps=0, lengths=[1024] * 8, different_steps=100, kept_tokens=200_000,
    taught_tokens=150_000, cached=False, verifier_runs=True,
)  # fmt: skip


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autograd_keeps_what_is_estimated(tmp_path, dtype, steps):
    """Of the draft and the loss; without the weights and their copies, which the optimizer's part
    has."""
    lengths, kept = [120, 60], {}
    tokens = sum(lengths)
    folder = make_verifier(tmp_path, hidden_size=256, intermediate_size=600)
    verifier = Verifier.load(folder, torch.float32, torch.device("cpu"))
    draft = Draft(draft_config(None, verifier.config))
    initialize_random(draft, 0)
    vocabulary = full_vocabulary(verifier.head)

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tokens in tensor.shape or tensor.dim() == 4:  # a weight has neither
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    inputs, target = torch.randn(2, tokens, 256)
    teacher = teach(target, vocabulary)
    predictor = draft if dtype == torch.float32 else LowPrecisionDraft(draft, dtype)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        steps_of_draft = rollout(
            predictor, inputs, inputs, torch.arange(tokens), lengths, "sdpa", steps
        )
        losses = [eagle_loss(step, target, teacher, vocabulary) for step in steps_of_draft]
    assert len(losses) == 1 + steps
    sizes = replace(
        SEVEN_BILLION, hidden=256, draft_inner=600, draft_keys=128, lengths=lengths,
        compute_bytes=dtype.itemsize, rollout_steps=steps,
    )  # fmt: skip
    assert kept_for_backward(sizes) == pytest.approx(sum(kept.values()), rel=0.15)


def test_the_parts_of_a_7b_verifier_on_a_gpu():
    """By hand: 6.7 billion numbers of 2 bytes; 236 million of 18; features and means of 4,096
    numbers of 2 bytes; logits of 8,192 x 16,384 in 8 bytes."""
    parts = memory_by_part(SEVEN_BILLION)
    assert parts["verifier"] == 13_476_000_000
    assert parts["features"] == 350_000 * 8192
    assert parts["draft and optimizer"] == 236_000_000 * 18
    assert parts["loss blocks"] == 8192 * (16_384 * 8 + 3 * 4 * 4096)
    assert 23e9 < sum(parts.values()) < 25e9
    line = as_line(parts)
    assert line.startswith("about 2")
    assert "verifier 13,476, features 2,867" in line
    assert "features" not in as_line(memory_by_part(replace(SEVEN_BILLION, cached=True)))


def test_the_numbers_need_no_torch():
    """A plan for a machine is made without it."""
    code = "import sys, eagle.training.memory; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
