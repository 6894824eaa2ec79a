"""Words as they are compared, and which of them tell something or are part of a name."""

from __future__ import annotations

import pytest

from memtune.evidence.truth.terms import Language, holds, terms


def stems(text):
    return [term.stem for term in terms(text)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1,190 pounds", "1190 pounds"),
        ("1’190", "1190"),
        ("12\u202f500", "12500"),
        ("17,5 Prozent", "17.5 prozent"),
        ("Solène's ropes", "SOLENE rope"),
        ("measured, measures, measuring", "measure measure measure"),
        ("HT-4471", "ht 4471"),
    ],
)
def test_the_same_in_another_dress(one, other):
    assert stems(one) == stems(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("18.5", "185"), ("5.2.1", "5.2.7"), ("1,19", "119"), ("10.41.7.12", "10.41.9.12"), ("AM62", "AM71")],
)
def test_other_numbers_are_other_terms(one, other):
    assert stems(one) != stems(other)


def test_a_number_is_one_term_so_37_is_not_in_37_5():
    assert holds(terms("It is 37 bar."), terms("37"))
    assert not holds(terms("It is 37.5 bar."), terms("37"))


def test_a_part_stands_together_and_nothing_is_no_part():
    assert holds(terms("a green and gold flag"), terms("Green and gold"))
    assert not holds(terms("a gold and green flag"), terms("Green and gold"))
    assert not holds(terms("a flag"), terms("?!"))


@pytest.fixture(scope="module")
def language():
    return Language(["What is stored in bay N1?", "Calibration certificates are signed by whom?", "whose calibration"])


def test_words_that_every_question_holds_tell_little_and_names_much(language):
    told = dict(
        zip(("the", "of", "warranty", "Zembla"), map(language.tells, terms("the of warranty Zembla")), strict=True)
    )
    assert told == {"the": False, "of": False, "warranty": True, "Zembla": True}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("The range of the Curlew 3 is wide", [("curlew", "3")]),
        ("What is part HT-4471?", [("ht", "4471")]),
        ("In 2019 Halden Tarn moved", [("2019",), ("halden", "tarn")]),
        ("Which Heron, which Merlin?", [("heron",), ("merlin",)]),
        ("Calibration is due", []),
        ("Zembla is far", [("zembla",)]),
        ("New Delhi is large", [("new", "delhi")]),
        ("How do I reach Zembla?", [("zembla",)]),
        ("nothing here", []),
    ],
)
def test_names_are_capitals_and_digits_that_stand_together(language, text, names):
    assert language.names(terms(text)) == names


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("The Curlew 3 is wide", True),
        ("the curlew 3 is wide", True),
        ("It is wide, as the Curlew 3 is.", True),
        ("The Curlew 3 Pro is wide", False),
        ("The Curlew 30 is wide", False),
        ("The Old Curlew 3 is wide", False),
        ("The Curlew and 3 others are wide", False),
    ],
)
def test_a_longer_name_is_another_one(language, text, named):
    assert language.is_named(("curlew", "3"), terms(text), frozenset()) is named


def test_what_the_fact_says_itself_may_stand_beside_its_name(language):
    assert language.is_named(("ht", "4471"), terms("Part HT-4471 is a collar"), frozenset({"part"}))
