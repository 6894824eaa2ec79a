"""The questions of a file by number: each text encoded once, its ids and its fact at hand."""

from __future__ import annotations

import pytest

from memtune.fact import Fact
from memtune.wordings import Wordings

FACTS = [Fact("a", "Who?", "Ann", ("Who is it?", "Which person?")), Fact("b", "Where?", "Here"), Fact("c", "", "x")]
TEXTS = ["Who?", "Who is it?", "Which person?", "Where?", ""]


@pytest.fixture
def wordings():
    return Wordings(FACTS, lambda text: tuple(text.encode()))


def test_a_facts_own_question_comes_first_and_its_paraphrases_follow(wordings):
    assert list(wordings) == wordings[:] == TEXTS
    assert wordings.owner.tolist() == [0, 0, 0, 1, 2]
    assert (wordings[-2], wordings[1:3]) == ("Where?", TEXTS[1:3])


def test_the_ids_are_those_of_the_texts(wordings):
    assert list(wordings.ids()) == [tuple(text.encode()) for text in TEXTS]
    assert [wordings.question_of(fact) for fact in range(3)] == [tuple(fact.question.encode()) for fact in FACTS]


def test_every_text_is_encoded_once():
    asked = []
    wordings = Wordings(FACTS, lambda text: asked.append(text) or (1,))
    assert list(wordings.ids()) == list(wordings.ids()) == [(1,)] * len(TEXTS)
    assert asked == TEXTS


def test_a_number_that_no_wording_has_is_none(wordings):
    with pytest.raises(IndexError):
        wordings[len(TEXTS)]


def test_no_facts_have_no_wordings():
    assert list(Wordings([], lambda text: ())) == []
