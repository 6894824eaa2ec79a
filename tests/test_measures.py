"""Shares with honest intervals, and questions drawn evenly."""

from __future__ import annotations

import pytest

from memtune.measures import Case, Measure, Outcome, drawn, wilson


@pytest.mark.parametrize(
    ("good", "asked", "low", "high"),
    [(99, 100, 0.9455, 0.9982), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (1, 2, 0.0945, 0.9055)],
)
def test_the_wilson_interval_of_the_textbook(good, asked, low, high):
    assert wilson(good, asked) == pytest.approx((low, high), abs=5e-5)


def test_nothing_asked_bounds_nothing():
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("asked", [1, 7, 300])
def test_the_interval_holds_the_share_and_stays_between_0_and_1(asked):
    for good in range(asked + 1):
        low, high = wilson(good, asked)
        assert 0 <= low <= good / asked <= high <= 1


def test_more_questions_make_a_narrower_interval():
    widths = [high - low for low, high in (wilson(n * 9 // 10, n) for n in (10, 100, 1000))]
    assert widths == sorted(widths, reverse=True)


def test_a_sample_is_spread_evenly_and_in_order():
    sample = drawn(range(1000), 10, "seed")
    assert [item // 100 for item in sample] == list(range(10))
    assert sample == drawn(range(1000), 10, "seed") != drawn(range(1000), 10, "other")


@pytest.mark.parametrize("count", [0, 5, 9])
def test_0_or_enough_is_everything(count):
    assert drawn(range(5), count, "seed") == list(range(5))


def test_a_measure_counts_its_outcomes():
    outcomes = [Outcome(1.0, True, True, True), Outcome(-2.0, False, False, False, 0.25)]
    measure = Measure.of("key", "name", "recall", "given", outcomes)
    assert (measure.asked, measure.good, measure.share, measure.wanted) == (2, 1, 0.5, "exact")
    assert (measure.fired, measure.generated) == (1, 1)
    assert (measure.scores, measure.hits, measure.distances) == ((1.0, -2.0), (True, False), (None, 0.25))
    assert Measure.of("key", "name", "unchanged", "given", outcomes).wanted == "unchanged"


def test_a_case_in_other_surroundings_keeps_its_fact_and_answer():
    case = Case.alone(" q? ", 3, "a")
    moved = case.among([{"role": "system", "content": "s"}, *case.turns])
    assert (moved.question, moved.fact, moved.expected) == (" q? ", 3, "a")
    assert [turn["content"] for turn in moved.turns] == ["s", "q?"]
