"""Questions are drawn by the seed, taught ones and held-out ones apart, and go on when a file ends."""

from __future__ import annotations

import pytest

from memtune.evidence.storage.pool import Pool
from memtune.fact import Fact

FILE = [Fact(f"f-{number}", f"What is part {number}?", f"Bolt {number}") for number in range(30)]


def test_the_seed_draws_the_order():
    assert Pool(FILE, 1).first(30) == Pool(FILE, 1).first(30) != Pool(FILE, 2).first(30)
    assert sorted(Pool(FILE, 1).first(30), key=FILE.index) == FILE


def test_fewer_are_the_first_of_more():
    pool = Pool(FILE, 0)
    assert pool.first(40)[:7] == pool.first(7)


def test_where_the_file_ends_synthetic_questions_go_on():
    facts = Pool(FILE, 0).first(45)
    assert len({fact.question for fact in facts}) == 45
    assert not any(fact in FILE for fact in facts[30:])
    assert facts[30:] == Pool(None, 0).first(15)


def test_synthetic_ones_have_one_wording_each():
    assert not any(fact.paraphrases for fact in Pool(None, 0).first(20))


@pytest.mark.parametrize(
    ("count", "taught", "held_out"), [(8, 8, 16), (20, 20, 10), (30, 24, 6), (1000, 24, 6)], ids=str
)
def test_of_a_file_at_most_one_question_in_five_is_kept_from_teaching(count, taught, held_out):
    facts, held = Pool(FILE, 0).split(count, 16)
    assert (len(facts), len(held)) == (taught, held_out)
    assert not {fact.question for fact in facts} & set(held)
    assert set(held) <= {fact.question for fact in FILE}


@pytest.mark.parametrize("count", [1, 8])
def test_synthetic_questions_never_run_out(count):
    facts, held = Pool(None, 0).split(count, 16)
    assert (len(facts), len(held)) == (count, 16)


def test_one_fact_is_taught_and_nothing_held_out():
    assert Pool(FILE[:1], 0).split(32, 16) == (FILE[:1], [])
