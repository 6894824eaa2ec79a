"""Every question in a sequence of ids is found, with the place of its answer; whatever is half-open is left alone."""

from __future__ import annotations

import random

import pytest

from memtune.memory.turns import Turn, TurnFormat, find_runs

SYSTEM, OPENING, CLOSING = (90, 91, 92), (80, 81), (82, 80, 83)
CHAT = TurnFormat(prefix=SYSTEM + OPENING, opening=OPENING, closing=CLOSING)
NEWLINE = 7
BASE = TurnFormat(prefix=(1,), newlines=frozenset({NEWLINE}))


def turns(*parts, form=CHAT):
    ids = [token for part in parts for token in part]
    return form.turns(ids, len(ids))


def test_runs_are_found_without_overlap():
    assert find_runs([1, 2, 3, 1, 2], (1, 2)) == [0, 3]
    assert find_runs([1, 1, 1, 1, 1], (1, 1)) == [0, 2]
    assert find_runs([1, 1, 2], (1, 2)) == [1]
    assert find_runs([1], (1, 2)) == find_runs([], (1,)) == []


def test_runs_are_those_of_a_plain_search():
    draw = random.Random(0)
    for _ in range(500):
        ids = draw.choices(range(3), k=draw.randrange(30))
        run = tuple(draw.choices(range(3), k=draw.randrange(1, 4)))
        expected, place = [], 0
        while place <= len(ids) - len(run):
            match = tuple(ids[place : place + len(run)]) == run
            expected += [place] * match
            place += len(run) if match else 1
        assert find_runs(ids, run) == expected


def test_a_prompt_holds_its_question():
    prompt = CHAT.prompt((5, 6))
    assert prompt == (*SYSTEM, *OPENING, 5, 6, *CLOSING)
    assert CHAT.turns(list(prompt), len(prompt)) == [Turn(start=5, end=7, answer=10, until=10)]


def test_every_question_of_a_conversation_is_found():
    found = turns(SYSTEM, OPENING, (5, 6), CLOSING, (1, 2, 3), OPENING, (5,), CLOSING, (4,))
    assert found == [Turn(5, 7, 10, 13), Turn(15, 16, 19, 20)]


def test_any_conversation_is_taken_apart_again():
    draw = random.Random(1)
    text = range(10, 60)  # what stands between the markers holds none of them
    for _ in range(300):
        ids, expected = draw.choices(text, k=draw.randrange(9)), []
        for _ in range(draw.randrange(1, 5)):
            question = draw.choices(text, k=draw.randrange(1, 9))
            answer = draw.choices(text, k=draw.randrange(9))
            start = len(ids) + len(OPENING)
            ids += [*OPENING, *question, *CLOSING, *answer]
            expected.append(Turn(start, start + len(question), len(ids) - len(answer), len(ids)))
        assert CHAT.turns(ids, len(ids)) == expected


@pytest.mark.parametrize(
    "parts",
    [
        (),
        (SYSTEM, OPENING),
        (SYSTEM, OPENING, (5, 6)),
        (SYSTEM, OPENING, (5, 6), CLOSING[:2]),
        (SYSTEM, OPENING, CLOSING, (1, 2)),
        ((5, 6), CLOSING, (1, 2)),
        ((-1, -1, 5, 6),),
    ],
    ids=["nothing", "opened", "asked", "closing", "empty question", "never opened", "padding"],
)
def test_what_is_not_asked_to_the_end_is_no_turn(parts):
    assert turns(*parts) == []


def test_an_unanswered_turn_does_not_hide_the_next_one():
    assert turns(OPENING, (5, 6), OPENING, (7,), CLOSING) == [Turn(6, 7, 10, 10)]


def test_padding_inside_a_marker_breaks_it():
    assert turns(OPENING[:1], (-1,), OPENING[1:], (5,), CLOSING) == []


def test_without_a_template_the_question_is_the_last_paragraph_of_the_prompt():
    context = [1, 20, 21, NEWLINE, 22, NEWLINE]
    assert BASE.turns([*context, 5, 6], 8) == [Turn(6, 8, 8, 8)]
    assert BASE.turns([*context, 5, 6, 30, 31], 8) == [Turn(6, 8, 8, 10)]


def test_without_a_template_a_prompt_of_one_paragraph_begins_behind_the_prefix():
    assert BASE.turns([1, 5, 6], 3) == [Turn(1, 3, 3, 3)]
    assert BASE.turns([5, 6], 2) == [Turn(0, 2, 2, 2)]
    assert BASE.turns([1], 1) == []


def test_without_a_template_a_prompt_that_is_not_there_to_its_end_asks_nothing():
    assert BASE.turns([1, 5, 6], 5) == []


def test_without_a_template_padding_on_the_left_is_no_part_of_the_question():
    assert BASE.turns([-1, -1, 1, 5, 6], 5) == [Turn(3, 5, 5, 5)]
    assert BASE.turns([-1, -1, 1, 20, NEWLINE, 5, 6], 7) == [Turn(5, 7, 7, 7)]
