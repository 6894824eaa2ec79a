"""A memory can lose facts and gain others: what is known of the rest stays as it was, byte for byte."""

from __future__ import annotations

import pytest
import torch
from tiny import FACTS, PARAPHRASES

from memtune.memory.bank import Bank
from memtune.memory.edit import Addition, caution_for, edited, takers
from memtune.memory.index import Lists
from memtune.memory.stored import StoredQuestions
from memtune.prior import prior_for

NAMES = [name for name, _, _ in FACTS]
FERRY = ("When does the last ferry leave?", "Until when does the ferry sail?")


def kept(memory, *names):
    return edited(memory, torch.tensor([NAMES.index(name) for name in names], dtype=torch.int64))


def known(memory):
    """All that a memory holds of each of its facts, by id."""
    bank, stored = memory.bank, memory.router.stored
    owner, caution = memory.router.get_buffer("owner"), memory.router.get_buffer("caution")
    found = {}
    for fact in range(bank.sizes.facts):
        questions = stored.take(torch.nonzero(owner == fact).squeeze(1))
        rows = [getattr(bank, name)[bank.run(fact)] for name in ("keys", "values", "scales")]
        figures = [getattr(bank, name)[fact] for name in ("loss", "worst", "accepted")]
        found[bank.id_of(fact)] = [*rows, *figures, *vars(questions).values(), caution[owner == fact]]
    return found


def assert_same(mine, theirs):
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


@pytest.fixture
def read(memory, backbone):
    def run(*texts):
        ids = [backbone.prompts.question(text) for text in texts]
        return StoredQuestions.pack([memory.router.reader.read(ids, backbone.states.early(ids))])

    return run


@pytest.fixture
def ferry(memory, read):
    """A fact of seven answer tokens with two wordings."""
    bank = Bank.assigned(["ferry"], [7], memory.bank.hidden)
    return Addition(bank, read(*FERRY), torch.tensor([0, 0]), torch.tensor([0.5, 0.25]), 0)


def routed(memory, backbone, text):
    ids = backbone.prompts.question(text)
    [route] = memory.router.route([ids], backbone.states.early([ids]))
    return memory.bank.id_of(route.fact) if route.fired else None


def test_what_is_kept_stays_as_it_was_in_any_order(memory):
    before, after = known(memory), known(kept(memory, "flag", "tram", "lighthouse"))
    assert list(after) == ["flag", "tram", "lighthouse"]
    for name, rows in after.items():
        assert_same(rows, before[name])


def test_what_is_left_out_is_gone_and_so_are_words_that_no_other_fact_holds(memory):
    without = kept(memory, *(name for name in NAMES if name != "valve"))
    gone = memory.bank.values[memory.bank.run(NAMES.index("valve"))]
    assert not any((without.bank.values == row).all(1).any() for row in gone)
    stored = without.router.stored
    assert sorted(stored.spelling.unique().tolist()) == list(range(len(stored.sketch)))
    assert len(stored.sketch) < len(memory.router.stored.sketch)


def test_a_question_that_was_left_out_fires_no_more_and_the_others_fire_as_before(memory, backbone):
    without = kept(memory, "gauge", "tram", "lighthouse", "keeper", "flag")
    assert routed(without, backbone, FACTS[1][1]) is None
    assert [routed(without, backbone, question) for name, question, _ in FACTS if name != "valve"] == [
        name for name in NAMES if name != "valve"
    ]
    assert routed(without, backbone, PARAPHRASES["tram"][0]) == "tram"


def test_what_is_added_is_found_by_each_of_its_wordings(memory, backbone, ferry):
    more = edited(memory, torch.arange(len(NAMES) + 1), ferry)
    assert more.bank.experts_of(len(NAMES)) == 7 and not more.bank.accepted[len(NAMES)]
    assert [routed(more, backbone, text) for text in FERRY] == ["ferry", "ferry"]
    before, after = known(memory), known(more)
    for name in NAMES:
        assert_same(after[name], before[name])
    assert after["ferry"][-1].tolist() == [0.5, 0.25]


def test_adding_and_leaving_out_again_changes_nothing(memory, ferry):
    again = edited(edited(memory, torch.arange(len(NAMES) + 1), ferry), torch.arange(len(NAMES)))
    before, after = known(memory), known(again)
    assert again.config == memory.config and list(after) == list(before)
    for name, rows in after.items():
        assert_same(rows, before[name])


def test_all_facts_can_be_left_out(memory, backbone):
    nothing = kept(memory)
    assert nothing.bank.sizes.facts == len(nothing.router.stored) == 0
    assert routed(nothing, backbone, FACTS[0][1]) is None


def test_the_lists_of_an_index_follow(memory, backbone, ferry):
    stored, owner = memory.router.stored, memory.router.get_buffer("owner")
    lists = Lists.of(stored.vectors[:2], torch.arange(len(stored)) % 2, torch.tensor([2], dtype=torch.int32))
    listed = edited(memory, torch.arange(len(NAMES)))
    listed.router = memory.router.holding(stored, owner, lists, torch.zeros(len(stored)), 0)
    more = edited(listed, torch.tensor([6, 0, 3]), ferry)  # the ferry with two wordings, and two facts with one
    assert sorted(more.router.lists.order.tolist()) == list(range(4))
    assert more.router.lists.members()[2:].tolist() == lists.members()[[0, 4]].tolist()
    assert [routed(more, backbone, text) for text in (FERRY[1], FACTS[3][1])] == ["ferry", "gauge"]


def test_strangers_make_a_question_cautious_within_bounds(memory, backbone, read):
    strangers = prior_for(backbone, lambda event: None).strangers
    caution = caution_for(memory.router, read(*FERRY), strangers, margin=0.25, most=2.0)
    assert caution.shape == (2,) and bool(((caution >= 0) & (caution <= 2.0)).all())
    surest = caution_for(memory.router, read(*FERRY), strangers, margin=1e6, most=2.0)
    assert surest.tolist() == [2.0, 2.0]


def test_a_stored_question_that_would_fire_a_new_one_is_named(memory, read):
    [(new, stored, score)] = takers(memory.router, read(FACTS[2][1]), torch.zeros(1))
    assert (new, int(memory.router.get_buffer("owner")[stored])) == (0, 2)
    assert score >= float(memory.router.get_buffer("threshold"))
    assert takers(memory.router, read("Is it raining?"), torch.zeros(1)) == []


def test_a_facts_own_questions_do_not_count_as_takers(memory, read):
    assert takers(memory.router, read(FACTS[2][1]), torch.zeros(1), owner=torch.tensor([2])) == []
    assert takers(memory.router, read(FACTS[2][1]), torch.zeros(1), owner=torch.tensor([1]))
