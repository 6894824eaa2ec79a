"""What the gate is shown of two questions: who found a partner, who did not, and how rare they are."""

from __future__ import annotations

import pytest
import torch

from memtune.memory import compare as compare_module
from memtune.memory.compare import (
    EVIDENCE,
    FEATURES,
    PER_PAIR,
    RAREST_FOUND,
    RARITY,
    WORDS,
    gate_features,
    heard,
    left_over,
)

SPELT, EQUAL = 1, 4  # places of a word's figures
STORED = ["Who built the lighthouse at Kirkby Strand?", "What is part HT-4471?", "How long is leave?"]


@pytest.fixture(scope="module")
def read(backbone, memory):
    def questions(texts):
        ids = [backbone.prompts.question(text) for text in texts]
        return memory.router.reader.read(ids, backbone.states.early(ids))

    return questions


@pytest.fixture(scope="module")
def compare(read, memory):
    def features(asked, stored):
        pairs = torch.arange(len(asked)).repeat(2, 1).T
        return gate_features(read(asked), read(stored), pairs, memory.router.reader.idf)

    return features


def words(features):
    """The rows of the asked side: (pairs, WORDS, EVIDENCE)."""
    return features[:, PER_PAIR:-1].view(len(features), 2, WORDS, EVIDENCE)[:, 0]


def test_no_pairs_give_no_features(read, memory):
    one = read(STORED[:1])
    assert gate_features(one, one, torch.zeros(0, 2, dtype=torch.long), memory.router.reader.idf).shape == (0, FEATURES)


def test_in_the_same_words_every_word_finds_itself(compare):
    features = compare(STORED, STORED)
    rows = words(features)
    real = rows[..., 0] == 1
    assert real.any(1).all()
    assert rows[..., SPELT][real].eq(1).all() and rows[..., EQUAL][real].eq(1).all()
    assert features[:, 0].allclose(torch.ones(len(STORED)), atol=1e-3)


def test_what_found_no_partner_comes_first_when_it_is_rare(compare):
    [rows] = words(compare(["Who built the lighthouse at Zarnow?"], STORED[:1]))
    assert rows[0, EQUAL] == 0 and rows[0, SPELT] < 0.5
    assert rows[0, RARITY] == rows[:, RARITY].max()


def test_nothing_is_left_over_of_a_question_in_the_stored_words_and_of_another_what_it_has_beside_them(read, memory):
    asked, stored = read([*STORED[:1], f"Translate into Dutch: {STORED[0]}"]), read(STORED[:1])
    same, task = left_over(asked, stored, torch.tensor([[0, 0], [1, 0]]), memory.router.reader.idf).norm(dim=1)
    assert same < 1e-3 < task


def test_heard_is_what_is_near_and_what_is_kin_but_not_another_task():
    features = torch.zeros(4, FEATURES)
    features[:, 0] = torch.tensor([0.5, 0.4, 0.4, 0.5])  # cosine
    features[2, RAREST_FOUND], features[3, -1] = 1.0, 1.0
    assert heard(features, 0.45).tolist() == [True, False, True, False]


def test_a_long_question_shows_as_many_words_as_a_short_one(compare):
    features = compare([" ".join(STORED * 9), "Who?"], STORED[:2])
    assert features.shape == (2, FEATURES) and features.isfinite().all()
    assert words(features)[..., 0].sum(1).tolist() == [WORDS, 1]


def test_the_sides_are_shown_in_turn(compare):
    forth, back = compare(STORED[:1], STORED[1:2]), compare(STORED[1:2], STORED[:1])
    one, two = (features[:, PER_PAIR:-1].view(2, WORDS, EVIDENCE) for features in (forth, back))
    assert one[0].allclose(two[1], atol=1e-3) and one[1].allclose(two[0], atol=1e-3)


def test_the_longer_the_questions_the_fewer_are_compared_at_once(read, memory, monkeypatch):
    questions, at_once = read(STORED), []
    longest = int(questions.offsets.diff().max())
    features = compare_module._features
    monkeypatch.setattr(compare_module, "WORDS_PER_CHUNK", 2 * longest)
    monkeypatch.setattr(compare_module, "_features", lambda a, b: at_once.append(len(a.real)) or features(a, b))
    pairs = torch.arange(len(STORED)).repeat(2, 1).T
    assert len(gate_features(questions, questions, pairs, memory.router.reader.idf)) == len(STORED)
    assert max(at_once) == 2 and sum(at_once) == len(STORED)


def test_a_pair_reads_the_same_whatever_is_compared_beside_it(read, memory):
    """Padding is nobody's partner, and of equal ones the first is."""
    asked = read(
        ["Who built it?", "Was the mill at Ostrava there before the mill at Zarnow or the mill at Brno was there?"]
    )
    stored, idf = read(STORED), memory.router.reader.idf
    pairs = torch.cartesian_prod(torch.arange(len(asked)), torch.arange(len(stored)))
    together = gate_features(asked, stored, pairs, idf)
    alone = torch.cat([gate_features(asked, stored, pair[None], idf) for pair in pairs])
    assert (together - alone).abs().max() <= 1 / 4096
