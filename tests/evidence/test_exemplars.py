"""Exemplars are asked alike, give nothing away, and are the same in every run and every order of the file."""

from __future__ import annotations

from collections import Counter

import pytest

from memtune.errors import DataError
from memtune.evidence.knowledge.exemplars import draw_sets
from memtune.fact import Fact

LANDS = ("Peru", "Chad", "Fiji", "Mali", "Oman", "Cuba", "Togo", "Iran", "Laos", "Niue", "Guam", "Bali")
CAPITALS = [Fact(land, f"What is the capital of {land}?", f"{land} City", source=f"c:{land}") for land in LANDS]
PEOPLE = [Fact(f"{land}-1", f"Who was the first king in {land}?", f"King {land}", source=f"p:{land}") for land in LANDS]


def shown(sets, number):
    return [sets.sets[i] for i in sets.of[number]]


def test_every_fact_has_so_many_different_sets_of_so_many_exemplars():
    sets = draw_sets(CAPITALS, CAPITALS, count=6, shots=3, seed=0)
    for i in range(len(CAPITALS)):
        assert len({frozenset(one) for one in shown(sets, i)}) == 6
        assert all(len(set(one)) == 3 for one in shown(sets, i))


def test_no_exemplar_has_the_question_or_the_answer_of_the_fact():
    twins = [Fact(f"{f.id}-2", f.question.replace("What is", "Name"), f.answer.upper()) for f in CAPITALS]
    facts = [*CAPITALS, *twins]
    sets = draw_sets(facts, facts, count=4, shots=4, seed=0)
    for i, fact in enumerate(facts):
        for one in (one for chosen in shown(sets, i) for one in chosen):
            assert one.question != fact.question and one.answer.casefold() != fact.answer.casefold()


def test_exemplars_are_of_the_facts_that_are_asked_alike():
    facts = [*CAPITALS, *PEOPLE]
    sets = draw_sets(facts, facts, count=4, shots=4, seed=0)
    for i, fact in enumerate(facts):
        assert {one.question.split()[0] for chosen in shown(sets, i) for one in chosen} == {fact.question.split()[0]}


def test_facts_that_are_asked_alike_share_their_sets():
    sets = draw_sets(CAPITALS, CAPITALS, count=3, shots=3, seed=0)
    assert len(sets.sets) == 4  # twelve facts in four sets of three: each fact is in one of them, and has the others


def test_a_lonely_question_takes_those_nearest_to_it():
    lonely = Fact("x", "What is the capital and the first king in Utopia?", "Nowhere")
    facts = [*CAPITALS, *PEOPLE, lonely]
    sets = draw_sets(facts, facts, count=4, shots=4, seed=0)
    assert all(one.question != lonely.question for chosen in shown(sets, len(facts) - 1) for one in chosen)


def test_a_file_of_exemplars_is_all_that_is_shown():
    sets = draw_sets(PEOPLE, CAPITALS, count=4, shots=4, seed=0)
    assert {one.answer for chosen in sets.sets for one in chosen} <= {fact.answer for fact in CAPITALS}


def test_the_order_of_the_file_says_nothing():
    facts = [*CAPITALS, *PEOPLE]
    sets, turned = (draw_sets(order, order, count=4, shots=4, seed=0) for order in (facts, facts[::-1]))
    for i in range(len(facts)):
        assert shown(sets, i) == shown(turned, len(facts) - 1 - i)


def test_another_seed_draws_other_sets():
    one, other = (draw_sets(CAPITALS, CAPITALS, count=4, shots=4, seed=seed) for seed in (0, 1))
    assert one != other == draw_sets(CAPITALS, CAPITALS, count=4, shots=4, seed=1)


def test_where_nearly_all_answers_are_the_same_the_others_are_shown():
    facts = [Fact(f"{i}", f"Is {land} an island?", "no" if i % 2 else "yes") for i, land in enumerate(LANDS)]
    sets = draw_sets(facts, facts, count=4, shots=4, seed=0)
    for i, fact in enumerate(facts):
        assert Counter(one.answer for chosen in shown(sets, i) for one in chosen)[fact.answer] == 0


def test_too_few_facts_are_named_with_what_would_do():
    with pytest.raises(DataError) as caught:
        draw_sets(CAPITALS[:5], CAPITALS[:5], count=4, shots=4, seed=0)
    assert str(caught.value) == "c:Chad: too few other facts to show before 'What is the capital of Chad?': 4"
    assert caught.value.hint.startswith("5 are needed")
    assert caught.value.hint.endswith("or ask for less: --sets 1 --shots 1")
    assert len(draw_sets(CAPITALS[:6], CAPITALS[:6], count=4, shots=4, seed=0).of[0]) == 4


def test_whoever_asked_for_the_least_is_not_told_to_ask_for_less():
    with pytest.raises(DataError) as caught:
        draw_sets(CAPITALS[:1], CAPITALS[:1], count=1, shots=1, seed=0)
    assert caught.value.hint == "one is needed: take it from a file, --exemplars FILE"
