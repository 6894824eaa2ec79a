"""Notes are found by words, and stand in the prompt as earlier turns."""

from __future__ import annotations

import pytest
from tiny import FACTS

from memtune.evidence.retrieval import Notes, as_turns
from memtune.fact import Fact

TAUGHT = [Fact(name, question, answer) for name, question, answer in FACTS]


def test_finds_the_fact_of_a_question():
    notes = Notes(TAUGHT)
    for fact in TAUGHT:
        assert notes.find(fact.question, 1) == [fact]


def test_finds_it_by_its_words_in_another_order():
    assert Notes(TAUGHT).find("The valve of brass: part number?", 1)[0].id == "valve"


def test_finds_nothing_where_no_word_is_shared():
    assert Notes(TAUGHT).find("Zyx qwv", 3) == []


@pytest.mark.parametrize("question", ['"tram" OR (12', "NEAR(tram)", "tram* -valve", "?!", ""])
def test_takes_the_marks_of_its_query_language_as_text(question):
    assert all(fact.id in {"tram", "valve"} for fact in Notes(TAUGHT).find(question, 1))


def test_notes_as_turns_have_the_best_last():
    turns = as_turns("Why?", TAUGHT[:2])
    assert [turn["content"] for turn in turns] == [
        *(TAUGHT[1].question, TAUGHT[1].answer, TAUGHT[0].question, TAUGHT[0].answer),
        "Why?",
    ]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user", "assistant", "user"]


def test_without_notes_the_question_stands_alone():
    assert as_turns("Why?", []) == [{"role": "user", "content": "Why?"}]
