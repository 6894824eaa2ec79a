"""The categories are the paper's, and the exact chances are what sampling comes to."""

from __future__ import annotations

import math

import pytest
import torch

from memtune.evidence.knowledge.slick import (
    CATEGORIES,
    SAMPLES,
    TEMPERATURE,
    TOP,
    Knowledge,
    Reading,
    category_of,
    read,
)

RIGHT, WRONG = Reading(True, 0.9), Reading(False, 0.0)
ANSWER, END, VOCABULARY = (3, 7), 2, 60


def logits_of(*rows):
    """Each row names the logits of some tokens; all others have 0."""
    logits = torch.zeros(len(rows), VOCABULARY)
    for row, named in enumerate(rows):
        for token, value in named.items():
            logits[row, token] = value
    return logits


@pytest.mark.parametrize(
    ("readings", "category"),
    [
        ([RIGHT] * 4, "HighlyKnown"),
        ([RIGHT, RIGHT, RIGHT, WRONG], "MaybeKnown"),
        ([RIGHT, WRONG, WRONG, WRONG], "MaybeKnown"),
        ([Reading(False, 0.2), WRONG, WRONG, WRONG], "WeaklyKnown"),
        ([Reading(False, 0.01)] * 4, "WeaklyKnown"),  # 1 - 0.99 ** 160 = 0.80
        ([Reading(False, 0.004)] * 4, "Unknown"),  # 1 - 0.996 ** 160 = 0.47
        ([WRONG] * 4, "Unknown"),
    ],
)
def test_exact_readings_have_the_category_of_their_definition(readings, category):
    assert Knowledge.exact(readings, alone=False).category == category


@pytest.mark.parametrize(
    ("readings", "category"),
    [
        ([Reading(True, 1.0)] * 10, "HighlyKnown"),
        ([Reading(True, 0.0), *[WRONG] * 9], "MaybeKnown"),
        ([Reading(False, 1 / 16), *[WRONG] * 9], "WeaklyKnown"),  # a single right sample of all 160
        ([WRONG] * 10, "Unknown"),
    ],
)
def test_drawn_readings_have_the_category_of_their_definition(readings, category):
    assert Knowledge.drawn(readings, alone=False).category == category


def test_the_borders_of_the_categories():
    assert [category_of(1.0, 0.0), category_of(1 - 1e-9, 0.0), category_of(1e-9, 0.0)] == [
        "HighlyKnown",
        "MaybeKnown",
        "MaybeKnown",
    ]
    assert category_of(0.0, 0.5) == "Unknown"
    assert category_of(0.0, math.nextafter(0.5, 1)) == "WeaklyKnown"
    assert CATEGORIES == ("HighlyKnown", "MaybeKnown", "WeaklyKnown", "Unknown")


def test_the_shares_are_means_over_the_sets():
    found = Knowledge.exact([Reading(True, 0.5), Reading(False, 0.1)], alone=True)
    assert (found.greedy, found.sampled, found.alone) == (0.5, pytest.approx(0.3), True)


@pytest.mark.parametrize("sets", [1, 4, 10])
def test_as_many_samples_are_thought_of_whatever_the_number_of_sets(sets):
    found = Knowledge.exact([Reading(False, 0.003)] * sets, alone=False)
    assert found.any == pytest.approx(1 - 0.997**SAMPLES)


def test_a_certain_answer_is_certain():
    assert Knowledge.exact([Reading(True, 1.0)] * 4, alone=True).any == 1


def test_greedy_is_right_if_every_token_and_the_end_are_the_likeliest():
    right = ({3: 9}, {7: 9}, {END: 9})
    assert read(logits_of(*right), ANSWER, [END]).greedy
    for place in range(3):
        rows = [*right[:place], right[place] | {5: 10}, *right[place + 1 :]]
        assert not read(logits_of(*rows), ANSWER, [END]).greedy


def test_any_end_ends_the_answer_and_their_chances_add_up():
    logits = logits_of({3: 99}, {7: 99}, {1: 5, END: 5, 4: 5})
    assert read(logits, ANSWER, [END, 4]).sampled == pytest.approx(2 / 3, abs=0.01)
    assert read(logits_of({3: 9}, {7: 9}, {4: 9}), ANSWER, [END, 4]).greedy


def test_what_is_not_among_the_likeliest_is_never_drawn():
    crowd = {token: 1.0 for token in range(10, 10 + TOP)}
    assert read(logits_of({3: 99}, {7: 0.5} | crowd, {END: 99}), ANSWER, [END]).sampled == 0
    assert read(logits_of({3: 99}, {7: 1.5} | crowd, {END: 99}), ANSWER, [END]).sampled > 0


def test_the_exact_chance_is_the_share_of_samples():
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(3, VOCABULARY, generator=draw) + logits_of({3: 4}, {7: 3}, {END: 4})
    kept = torch.full_like(logits, -math.inf).scatter(1, logits.topk(TOP).indices, logits.topk(TOP).values)
    drawn = torch.multinomial((kept / TEMPERATURE).softmax(-1), 40_000, replacement=True, generator=draw)
    share = float((drawn == torch.tensor([*ANSWER, END])[:, None]).all(0).float().mean())
    assert 0.05 < share < 0.95
    assert read(logits, ANSWER, [END]).sampled == pytest.approx(share, abs=0.01)
