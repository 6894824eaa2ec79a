"""A recorder draws the curve of a fit from what the fit tells; an epoch's losses stand where the epoch began."""

from __future__ import annotations

import math

import pytest
import torch

from memtune.evidence.storage.curve import Point, Recorder, epochs_as_points, rounds_to
from memtune.evidence.training import Epoch, Reached

LN2 = math.log(2)


def recorder(*runs):
    return Recorder(torch.tensor([0, *runs]).cumsum(0))


def tell(record, done, losses):
    """``losses``: of experts by their numbers."""
    record(done, torch.tensor(list(losses)), torch.tensor(list(losses.values())))


def test_a_token_that_is_done_stays_where_it_was():
    record = recorder(2, 1)
    tell(record, 0, {0: 4.0, 1: 2.0, 2: 9.0})
    tell(record, 1, {0: 0.5, 2: 3.0})
    tell(record, 2, {2: 0.25})
    assert record.points() == (Point(0, 6.0, 9.0, 0), Point(1, 2.125, 3.0, 0), Point(2, 0.75, 1.25, 1))


def test_a_fact_is_certain_when_every_token_is_above_one_half():
    record = recorder(2)
    tell(record, 0, {0: LN2 - 0.01, 1: LN2 + 0.01})
    tell(record, 1, {1: LN2 - 0.01})
    assert [point.certain for point in record.points()] == [0, 1]


def test_facts_that_are_fitted_one_after_the_other_make_one_curve():
    together, apart = recorder(1, 1), recorder(1, 1)
    tell(together, 0, {0: 4.0, 1: 2.0})
    tell(together, 1, {0: 1.0, 1: 0.5})
    for expert, losses in ((0, (4.0, 1.0)), (1, (2.0, 0.5))):
        for done, loss in enumerate(losses):
            tell(apart, done, {expert: loss})
    assert apart.points() == together.points()


def test_only_the_first_fit_of_a_fact_is_drawn():
    record = recorder(1, 2)
    tell(record, 0, {0: 4.0, 1: 2.0, 2: 2.0})
    assert record.again == 0
    before = record.points()
    tell(record, 0, {1: 7.0, 2: 7.0})
    tell(record, 1, {1: 0.1})
    assert [point for point in record.points() if point.round == 0] == list(before)
    assert record.points()[-1].mean == before[-1].mean
    assert record.again == 1


def test_a_fact_that_was_never_fitted_is_in_no_point():
    record = recorder(1, 3)
    tell(record, 0, {0: 4.0})
    assert record.points() == (Point(0, 4.0, 4.0, 0),)
    assert recorder(2).points() == ()


def test_an_epoch_stands_where_it_began_and_the_end_is_what_was_measured():
    epochs = [Epoch(1, 6.0, 7.0, 0.1), Epoch(2, 3.0, 4.0, 0.1)]
    points = epochs_as_points(epochs, Reached(2, 1.0, 2.0, 0))
    assert points == (Point(0, 6.0, 7.0), Point(1, 3.0, 4.0), Point(2, 1.0, 2.0))


@pytest.mark.parametrize(
    ("worst", "rounds"), [([3, 1, 0.1], 2), ([3, 0.1, 1, 0.1], 3), ([3, 1], None), ([0.1], 0), ([], None)], ids=str
)
def test_rounds_to_the_target_are_those_after_which_no_fact_leaves_it(worst, rounds):
    points = [Point(number, 0.0, float(loss)) for number, loss in enumerate(worst)]
    assert rounds_to(points, 0.5) == rounds
