"""Facts are found by their words, whatever signs stand between them."""

from __future__ import annotations

import pytest
from tiny import FACTS

from memtune.evidence.search import FactSearch
from memtune.fact import Fact

STORED = [Fact(name, question, answer) for name, question, answer in FACTS]


@pytest.fixture(scope="module")
def search():
    return FactSearch([*STORED, Fact("hours", "When is the desk open?", "9 to 5", ("What are the opening times?",))])


@pytest.mark.parametrize("number", range(len(STORED)))
def test_a_fact_is_found_by_its_own_question_first(search, number):
    assert search.find(STORED[number].question, 3)[0] == number


def test_a_fact_is_found_by_its_answer_and_by_its_other_wordings(search):
    assert search.find("Ann Brock was a builder.", 1) == [0]
    assert search.find("opening times", 1) == [len(STORED)]


def test_nothing_is_found_without_a_common_word(search):
    assert search.find("zebra xylophone", 3) == []
    assert search.find("?! --", 3) == []


@pytest.mark.parametrize(
    "query", ['the "valve" OR', "valve) NEAR(", "valve* -tram AND NOT", "valve'; DROP TABLE facts;"]
)
def test_operators_of_the_query_language_are_words_like_any_other(search, query):
    assert 1 in search.find(query, 7)


def test_it_says_how_large_it_is():
    many = [Fact(str(number), f"question {number} " * 20, f"answer {number}") for number in range(300)]
    assert FactSearch(many).bytes > 2 * FactSearch([]).bytes > 0
