"""Synthetic wordings keep the name that is asked about, near misses do not, and a seed gives the same ones again."""

from __future__ import annotations

import re

import pytest

from memtune.rewordings import fragments, near_misses, overlaps, rewordings

QUESTIONS = [
    "Who built the lighthouse at Kirkby Strand?",
    "What is part HT-4471?",
    "등대는 누가 지었나요?",
    "Hm?",
    "12",
]
OTHERS = ["Where is the Eiffel Tower?", "When did Marie Curie die?", "How far is Mars?", "Why did Hamlet hesitate?"]


def names(words):
    """Here a name begins with a capital, or holds a digit, inside the question."""
    return [any(c.isdigit() for c in word) or (i > 0 and word[0].isupper()) for i, word in enumerate(words)]


def made(write, question, seed=0):
    if write is rewordings:
        return rewordings(question, names, 20, seed)
    return write(question, OTHERS, names, *((2,) if write is near_misses else ()), seed)


@pytest.mark.parametrize("write", [rewordings, near_misses, overlaps])
@pytest.mark.parametrize("question", QUESTIONS)
def test_a_seed_gives_the_same_wordings_again(write, question):
    assert made(write, question) == made(write, question)


def test_another_seed_gives_other_wordings():
    assert made(rewordings, QUESTIONS[0], seed=0) != made(rewordings, QUESTIONS[0], seed=1)


@pytest.mark.parametrize("question", QUESTIONS)
def test_there_are_as_many_rewordings_as_were_asked_for_and_none_is_empty(question):
    for count in (0, 1, 7):
        wordings = rewordings(question, names, count, 0)
        assert len(wordings) == count and all(wording.strip() for wording in wordings)


def test_a_rewording_keeps_the_codes_of_the_question():
    assert all("ht-4471" in wording.lower() for wording in made(rewordings, "What is part HT-4471?"))


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("write", [near_misses, overlaps])
def test_another_question_is_never_the_same_question(write, question):
    for seed in range(20):
        assert question not in made(write, question, seed)


def test_a_near_miss_of_a_code_is_another_code_of_the_same_shape():
    for seed in range(20):
        assert any(
            miss != "What is part HT-4471?" and len(miss) == len("What is part HT-4471?") and "part HT-" in miss
            for miss in made(near_misses, "What is part HT-4471?", seed)
        )


def test_the_more_names_are_lent_the_more_other_codes_there_are():
    few, many = (near_misses("What is part HT-4471?", OTHERS, names, count, 0) for count in (1, 40))
    assert len([miss for miss in few if "HT-" in miss]) == 2
    assert 10 <= len([miss for miss in many if "HT-" in miss]) <= 20


@pytest.mark.parametrize(
    ("question", "longer"),
    [
        ("What is Kete (S-369)?", r"What is Kete \(S-369\w\)\?"),
        ("When was Vostok 2's?", r"When was Vostok 2\w's\?"),
    ],
)
def test_a_suffix_stands_at_the_code_itself(question, longer):
    misses = {miss for seed in range(20) for miss in near_misses(question, OTHERS, names, 1, seed)}
    assert any(re.fullmatch(longer, miss) for miss in misses)


def test_a_near_miss_of_a_name_asks_the_same_of_another_name():
    misses = {
        miss for seed in range(20) for miss in made(near_misses, "Who built the lighthouse at Kirkby Strand?", seed)
    }
    assert misses and all(miss.startswith("Who built the lighthouse at ") for miss in misses)
    assert all("Kirkby Strand" not in miss for miss in misses)


def test_a_near_miss_takes_as_many_other_names_as_are_asked_for_and_lent():
    question = "Who built the lighthouse at Kirkby Strand?"
    assert [len(near_misses(question, OTHERS, names, count, 0)) for count in (0, 1, 2)] == [0, 1, 2]
    assert len(set(near_misses(question, OTHERS, names, 99, 0))) <= len(OTHERS)


@pytest.mark.parametrize("same", ["Is it at Kirkby Strand?", "Where is Kirkby Strand's mayor?", "Did KIRKBY Strand!"])
def test_a_name_is_not_replaced_by_itself(same):
    assert near_misses("Who built Kirkby Strand, and when?", [same], names, 9, 0) == []


@pytest.mark.parametrize("line", ["Where is the Kirkby Strand Lighthouse?", "Where is Strand?", "9 8"])
def test_neither_a_part_nor_more_of_a_name_nor_a_line_that_is_all_name_takes_its_place(line):
    assert near_misses("Who built Kirkby Strand, and when?", [line], names, 9, 0) == []


@pytest.mark.parametrize(
    ("question", "line", "miss"),
    [
        ("Who built Kirkby Strand?", "How old is Zembla now?", "Who built Zembla?"),
        ("What is Zembla's area?", "Who runs Kirkby Strand?", "What is Kirkby Strand's area?"),
        ("Is Zembla, or was it, wet?", "Is Kirkby's Strand's mayor in?", "Is Kirkby's Strand, or was it, wet?"),
    ],
)
def test_what_stands_at_a_name_and_belongs_to_the_sentence_stays_in_it(question, line, miss):
    assert near_misses(question, [line], names, 1, 0) == [miss]


def test_a_word_between_two_that_have_a_capital_is_part_of_the_name():
    misses = near_misses("Where was Diego de Rosales born?", ["Who was Ann Oakley?"], names, 1, 0)
    assert misses == ["Where was Ann Oakley born?"]


def test_without_capitals_a_word_between_names_may_be_of_the_question():
    def rare(words):
        return [word in ("diego", "rosales", "ann") for word in words]

    assert near_misses("was diego in rosales", ["who was ann"], rare, 1, 0) == ["was ann in rosales"]


def test_an_overlap_asks_something_else_with_a_part_of_the_name():
    made_ = {text for seed in range(20) for text in made(overlaps, "Who built the lighthouse at Kirkby Strand?", seed)}
    assert made_ and all("Kirkby" in text or "Strand" in text for text in made_)
    assert not any("lighthouse" in text for text in made_)


def test_a_question_without_a_name_has_no_near_miss():
    assert made(near_misses, "Hm?") == made(overlaps, "Hm?") == []


def test_without_its_name_a_question_is_a_fragment():
    assert fragments("Where is Eiffel located now?", names) == ["Where is located now?", "located now?", "now?"]


def test_a_question_that_names_nothing_has_no_fragments():
    assert fragments("Hm?", names) == []
