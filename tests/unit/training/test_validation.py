"""The results of a validation, compared with the same written plainly."""

from functools import partial

import pytest
import torch

from eagle.draft.draft import attend_within_documents
from eagle.draft.rollout import rollout
from eagle.draft.vocabulary import full_vocabulary
from eagle.training.batch import Split
from eagle.training.features import ReplayedFeatures
from eagle.training.loss import reference_loss
from eagle.training.validation import Validation


@pytest.fixture
def validation(verifier, draft, tokens, make_config):
    features = ReplayedFeatures(tokens, verifier, full_vocabulary(verifier.head))
    split = Split.make(tokens, features, "decoding", verifier.stop_token_ids)

    def predict(batch, steps):
        embeddings = verifier.embedding[batch.next_tokens]
        fixed = (batch.positions, batch.lengths, "sdpa", steps)
        return rollout(draft, batch.features, embeddings, *fixed)

    return Validation(make_config(replay_documents=5), split, predict)


def test_loss_and_agreements_are_those_of_each_document_alone(validation, verifier, draft):
    found = validation.run(lambda: False)
    tokens, loss, top1, top5, counted = validation.split.tokens, 0.0, 0, 0, 0
    for document in range(len(tokens)):
        ids = tokens.token_ids[tokens.span(document)].long()
        features = verifier.features(ids[None])[0]
        attend = attend_within_documents([len(ids) - 1], "eager")
        embeddings = verifier.embedding[ids[1:]]
        with torch.no_grad():
            predicted = draft(features[:-1], embeddings, torch.arange(len(ids) - 1), attend)
        at = validation.split.counted[document]
        predicted, target = predicted[at], features[1:][at]
        sums = reference_loss(predicted, target, verifier.head)
        likeliest = (target @ verifier.head.T).argmax(-1, keepdim=True)
        five = (predicted @ verifier.head.T).topk(5).indices
        loss, top1 = loss + float(sums.classification), top1 + int(sums.agreements)
        top5, counted = top5 + int((five == likeliest).sum()), counted + int(at.sum())
    assert found["validation_loss"] == pytest.approx(loss / counted, rel=1e-5)
    assert found["validation_top1"] == pytest.approx(top1 / counted, abs=1e-9)
    assert found["validation_top5"] == pytest.approx(top5 / counted, abs=1e-9)
    assert found["alpha_0"] == pytest.approx(found["validation_top1"], abs=1e-9)


def test_a_validation_that_is_given_up_has_no_result(validation):
    assert validation.run(lambda: True) is None
    answers = iter([False, False, True, True, True, True])
    assert validation.run(partial(next, answers)) is None
    validation.split.features.buffered = ()
    validation.run(lambda: True)
    assert validation.split.features.buffered == ()  # the verifier does not run for nothing
