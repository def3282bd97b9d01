"""What validation says, against the same written plainly."""

from functools import partial

import pytest
import torch

from eagle.config import TrainConfig
from eagle.draft.draft import Draft, attend_within_documents, draft_config
from eagle.draft.rollout import rollout
from eagle.draft.vocabulary import full_vocabulary
from eagle.tokens.tokenization import tokenize
from eagle.tracking import Progress
from eagle.training.batch import Split
from eagle.training.features import ReplayedFeatures
from eagle.training.initialization import initialize_random
from eagle.training.loss import reference_loss
from eagle.training.validation import Validation
from eagle.verifier.verifier import Verifier
from tests.tiny import MARKED, make_messages, make_tokenizer


@pytest.fixture
def verifier(tiny_verifier):
    return Verifier.load(tiny_verifier, torch.float32, torch.device("cpu"))


@pytest.fixture
def draft(verifier):
    draft = Draft(draft_config(None, verifier.config))
    initialize_random(draft, 0)
    return draft


@pytest.fixture
def validation(verifier, draft):
    with Progress("tokenize", 6, "conversations") as progress:
        tokens, _ = tokenize(make_messages(6), make_tokenizer(), MARKED, 200, progress)
    whole = full_vocabulary(verifier.head)
    asked = TrainConfig(verifier_model_path="v", dataset_path="d", cpdir="c", replay_documents=4)
    split = Split.make(tokens, ReplayedFeatures(tokens, verifier, whole), "decoding", [2])

    def predict(batch, steps):
        embeddings = verifier.embedding[batch.next_tokens]
        fixed = (batch.positions, batch.lengths, "sdpa", steps)
        return rollout(draft, batch.features, embeddings, *fixed)

    return Validation(asked, split, whole, predict, any_rank=bool)


def test_loss_and_agreements_are_those_of_each_document_alone(validation, verifier, draft):
    judged = validation.judge(lambda: False)
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
    assert judged["validation_loss"] == pytest.approx(loss / counted, rel=1e-5)
    assert judged["validation_top1"] == pytest.approx(top1 / counted, abs=1e-9)
    assert judged["validation_top5"] == pytest.approx(top5 / counted, abs=1e-9)
    assert judged["alpha_0"] == pytest.approx(judged["validation_top1"], abs=1e-9)


def test_who_gives_up_says_nothing(validation):
    assert validation.judge(lambda: True) is None
    asked = iter([False, False, True, True, True, True])
    assert validation.judge(partial(next, asked)) is None
    validation.split.features.held = ()
    validation.judge(lambda: True)
    assert validation.split.features.held == ()  # the verifier does not run for what is given up
