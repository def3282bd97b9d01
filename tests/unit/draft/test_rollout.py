"""A rollout is what decoding gives the draft."""

import pytest
import torch
from transformers import AutoConfig

from eagle.draft import rollout as rollout_module
from eagle.draft.draft import Draft, attend_within_documents, draft_config
from eagle.draft.rollout import rollout
from eagle.training.initialization import initialize_random


@pytest.mark.parametrize("bucket", [1, 4, 8])
def test_a_rollout_has_the_features_of_decoding(tiny_verifier, bucket, monkeypatch):
    """Step j at position t, compared with one causal pass over the features that a chain begun at
    t - j has: true ones up to t - j, then its own. On a GPU the lengths are filled up."""
    monkeypatch.setitem(rollout_module.BUCKET, "cpu", bucket)
    config = draft_config(None, AutoConfig.from_pretrained(tiny_verifier))
    draft = Draft(config)
    initialize_random(draft, 0)
    lengths = [6, 4]
    torch.manual_seed(0)
    features, embeddings = torch.randn(2, 10, config.hidden_size)
    positions = torch.cat([torch.arange(length) for length in lengths])
    steps = list(rollout(draft, features, embeddings, positions, lengths, "sdpa", 3))
    assert len(steps) == 4
    for begin, length in ((0, 6), (6, 4)):
        for start in range(length):
            own = features[begin : begin + start + 1]
            for step in range(min(4, length - start)):
                seen = start + step + 1
                chain = draft(
                    own,
                    embeddings[begin : begin + seen],
                    torch.arange(seen),
                    attend_within_documents([seen], "eager"),
                )
                torch.testing.assert_close(
                    steps[step][begin + seen - 1], chain[-1], atol=1e-5, rtol=1e-5
                )
                own = torch.cat([own, chain[-1:]])
