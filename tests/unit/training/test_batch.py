"""Pairs, targets, teacher and noise of a micro-step, written out."""

import torch

from eagle.training.batch import Batch, Split, chain_acceptance_counts, input_noise
from eagle.training.loss import ROUND, Teacher
from tests.unit.tokens.test_token_set import STOP, two_turns


class Numbered:
    """Features whose values are their document and position."""

    def __init__(self, tokens):
        self.tokens = tokens

    def of(self, documents, positions):
        features = [
            torch.tensor([[float(d), float(t)] for t in range(self.tokens.length(d))])
            for d in documents
        ]
        chosen = [part[at] for part, at in zip(features, positions, strict=True)]
        return torch.cat(features), Teacher(torch.cat(chosen), torch.cat(chosen)[:, 1].long())


def test_pairs_are_feature_next_token_and_the_next_feature(make_config):
    tokens = two_turns()
    split = Split.make(tokens, Numbered(tokens), "decoding", [STOP])
    batch = split.batch([1, 0], make_config(), epoch=None)
    padding = ROUND - 12
    assert batch.lengths == [9, 3, padding]
    pairs = [[1, t] for t in range(9)] + [[0, t] for t in range(3)]
    assert batch.features.tolist() == pairs + [[0, 0]] * padding
    ids = [tokens.token_ids[tokens.span(d)].tolist() for d in (1, 0)]
    assert batch.next_tokens.tolist() == ids[0][1:] + ids[1][1:] + [0] * padding
    assert batch.positions.tolist() == [*range(9), *range(3), *range(padding)]
    # replies are tokens 2, 3 and 7 of document 1 and token 2 of document 0; pair t ends at t + 1
    assert batch.counted.tolist() == [1, 2, 6, 9 + 1]
    assert batch.targets.tolist() == [[1, 2], [1, 3], [1, 7], [0, 2]]
    assert batch.teacher.mean.tolist() == batch.targets.tolist()
    # a second drafted token needs the pair before to count, in the same reply
    assert batch.reached(1).tolist() == [1]


def test_training_pairs_are_noisy_and_their_targets_are_not(make_config):
    tokens = two_turns()
    split = Split.make(tokens, Numbered(tokens), "decoding", [STOP])
    clean, noisy = (split.batch([0, 1], make_config(), epoch) for epoch in (None, 3))
    assert torch.equal(clean.targets, noisy.targets)
    noise = (clean.features - noisy.features).abs()
    assert noise[:12].min() > 0
    assert noise.max() <= 0.1
    alone = split.batch([1], make_config(), 3)
    assert torch.equal(noisy.features[3:12], alone.features[:9])


def test_noise_is_drawn_from_seed_epoch_and_document_alone(make_config):
    states = torch.zeros(256, 8)
    noise = input_noise(states, make_config(seed=1), 0, 5)
    assert torch.equal(noise, input_noise(states, make_config(seed=1), 0, 5))
    for other in (
        input_noise(states, make_config(seed=2), 0, 5),
        input_noise(states, make_config(seed=1), 1, 5),
        input_noise(states, make_config(seed=1), 0, 6),
    ):
        assert not torch.equal(noise, other)
    assert -0.1 <= noise.min() < -0.09 < 0.09 < noise.max() <= 0.1
    scaled = input_noise(states, make_config(seed=1, noise_form="length_scaled"), 0, 5)
    torch.testing.assert_close(scaled, noise * 2)


def batch_of(counted: list[int], lengths: list[int]) -> Batch:
    """A batch in which only counted positions and lengths matter."""
    positions = torch.cat([torch.arange(length) for length in lengths])
    features = torch.zeros(len(positions), 1)
    rows = torch.zeros(len(counted), 1)
    teacher = Teacher(rows, rows[:, 0].long())
    return Batch(features, positions, rows, teacher, torch.tensor(counted), lengths, positions)


def test_accepted_chains_are_counted_as_one_by_one():
    lengths = [7, 5]
    counted = [2, 3, 4, 5, 6, 8, 9, 11]
    batch = batch_of(counted, lengths)
    agrees = torch.rand(3, len(counted), generator=torch.Generator().manual_seed(0)) < 0.7
    reached, accepted = [0] * 3, [0] * 3
    for start in counted:
        for step in range(3):
            at = start + step
            same_document = (at < 7) == (start < 7)
            if at not in counted or not same_document:
                break
            reached[step] += 1
            if not agrees[step, counted.index(at)]:
                break
            accepted[step] += 1
    steps = [lambda rows, agree=agree: agree[rows] for agree in agrees]
    assert chain_acceptance_counts(batch, steps).tolist() == [accepted, reached]
    assert reached[0] == len(counted) > reached[1] > reached[2] > 0
