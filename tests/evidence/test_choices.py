"""The shipped questions have one right answer among four, and none gives itself away by how it is written."""

from __future__ import annotations

from collections import Counter

from memtune.evidence.storage.choices import shipped_choices
from memtune.facts import fold_question
from memtune.lessons import background_prompts
from memtune.suites import heldout_prompts


def test_there_are_more_than_forty_with_four_different_options_each():
    assert len(shipped_choices()) >= 40
    for choice in shipped_choices():
        assert len({option.casefold() for option in choice.options}) == 4


def test_no_question_stands_twice_or_among_the_control_questions():
    asked = Counter(fold_question(choice.question) for choice in shipped_choices())
    asked.update(map(fold_question, heldout_prompts()))
    assert max(asked.values()) == 1


def test_no_question_holds_an_option():
    for choice in shipped_choices():
        words = choice.question.casefold().rstrip("?").split()
        assert not any(option.casefold() in words for option in choice.options)


def test_the_router_has_learned_from_none_of_them():
    known = {fold_question(text) for text in background_prompts()}
    assert not {fold_question(choice.question) for choice in shipped_choices()} & known
