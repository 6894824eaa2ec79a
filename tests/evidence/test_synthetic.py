"""Synthetic facts differ from one another, are the same in a file of any size, and never hold their own answer."""

from __future__ import annotations

import math

import pytest

from memtune.evidence.synthetic import NAMES, RELATIONS, STRIDE, facts


@pytest.fixture(scope="module")
def made():
    return list(facts(5000))


def test_every_question_and_every_wording_is_asked_once(made):
    asked = [text for fact in made for text in (fact.question, *fact.paraphrases)]
    assert len(set(asked)) == len(asked) == 3 * len(made)


def test_a_fact_is_the_same_in_a_file_of_any_size(made):
    assert list(facts(100)) == made[:100]


def test_another_seed_gives_the_same_questions_other_answers(made):
    others = list(facts(100, seed=1))
    assert [fact.question for fact in others] == [fact.question for fact in made[:100]]
    assert sum(one.answer != other.answer for one, other in zip(others, made, strict=False)) > 50


def test_no_question_holds_its_answer(made):
    assert not any(fact.answer.strip(".") in fact.question for fact in made)


def test_no_two_numbers_have_one_name(made):
    assert math.gcd(STRIDE, NAMES) == 1
    per_relation = made[:: len(RELATIONS)]
    assert len({fact.question for fact in per_relation}) == len(per_relation)
