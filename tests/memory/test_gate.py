"""Several networks vote on a pair; what divides them scores low."""

from __future__ import annotations

import torch

from memtune.memory.compare import EVIDENCE, FEATURES, PER_PAIR, WORDS
from memtune.memory.gate import MEMBERS, Gate, verdict


def made(seed=0, rows=5):
    torch.manual_seed(seed)
    features = torch.randn(rows, FEATURES)
    features[:, PER_PAIR:-1:EVIDENCE] = 1.0
    gate = Gate()
    gate.reset(features)
    return gate, features


def test_each_network_has_its_own_vote():
    gate, features = made()
    votes = gate.members(features)
    assert votes.shape == (MEMBERS, 5)
    assert (votes.std(0) > 0).all()


def test_agreement_scores_higher_than_the_same_mean_divided():
    agreed, divided = torch.full((MEMBERS, 1), 2.0), torch.tensor([[-4.0], [2.0], [8.0]])
    assert verdict(agreed) == 2.0 > verdict(divided)


def test_the_order_of_the_words_does_not_count():
    gate, features = made()
    turned = features.clone()
    turned[:, PER_PAIR:-1] = features[:, PER_PAIR:-1].view(-1, 2, WORDS, EVIDENCE).flip(2).flatten(1)
    assert gate(features).allclose(gate(turned), atol=1e-4)


def test_padding_has_no_voice():
    gate, features = made()
    rows = features[:, PER_PAIR:-1].view(-1, 2, WORDS, EVIDENCE)
    rows[:, :, 6:, 0] = 0.0
    before = gate(features)
    rows[:, :, 6:, 1:] = 99.0
    assert gate(features).allclose(before, atol=1e-4)
