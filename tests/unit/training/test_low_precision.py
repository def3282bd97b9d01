"""A draft with cast weights is the draft under autocast, number for number."""

import torch
from transformers import AutoConfig

from eagle.draft.draft import Draft, attend_within_documents, draft_config
from eagle.training.initialization import initialize_random
from eagle.training.low_precision import LowPrecisionDraft


def predict_and_step(draft: Draft, predict, optimizer) -> list[torch.Tensor]:
    """Two forward passes, the second on predictions of the first, and an optimizer's step."""
    generator = torch.Generator().manual_seed(1)
    features, embeddings = torch.randn(2, 9, draft.config.hidden_size, generator=generator)
    attend = attend_within_documents([9], "sdpa")
    first = predict(features, embeddings, torch.arange(9), attend)
    second = predict(first, embeddings, torch.arange(9), attend)
    (first.square().sum() + second.float().square().sum()).backward()
    gradients = [parameter.grad.clone() for parameter in draft.parameters()]
    optimizer.step()
    optimizer.zero_grad()
    return [first, second, *gradients]


def test_predictions_and_gradients_are_autocasts(tiny_verifier):
    config = draft_config(None, AutoConfig.from_pretrained(tiny_verifier))
    drafts = [Draft(config), Draft(config)]
    optimizers = []
    for draft in drafts:
        initialize_random(draft, 0)
        optimizers.append(torch.optim.AdamW(draft.parameters(), lr=0.1))
    low = LowPrecisionDraft(drafts[1], torch.bfloat16)

    def under_autocast(*inputs):
        with torch.autocast("cpu", torch.bfloat16):
            return drafts[0](*inputs)

    for _ in range(2):  # the second time with weights that have changed
        plain = predict_and_step(drafts[0], under_autocast, optimizers[0])
        ours = predict_and_step(drafts[1], low, optimizers[1])
        assert ours[0].dtype == torch.bfloat16
        for expected, found in zip(plain, ours, strict=True):
            assert torch.equal(expected, found)
        low.refresh()
