"""Rows that begin alike stand in a bin once, and each of them can be read out of it as it was."""

from __future__ import annotations

import random

import torch

from memtune.memory import forest
from memtune.memory.forest import WIDTH, batches_by_length, bins_of, one_by_one, padded, sees


def drawn_rows(seed, longest=40):
    """Of two tokens only, so that many begin alike, some are the same, and some begin another."""
    draw = random.Random(seed)
    return {i: tuple(draw.choice((5, 6)) for _ in range(draw.randrange(1, longest))) for i in range(60)}


def tokens_read(bins):
    return sum(len(one.ids) for one in bins)


def test_every_row_can_be_read_out_of_its_bin():
    for seed in range(20):
        rows = drawn_rows(seed)
        places = {i: (one, at) for one in bins_of(rows) for i, at in one.places.items()}
        for i, row in rows.items():
            one, at = places[i]
            assert tuple(one.ids[place] for place in at) == row
            assert [one.positions[place] for place in at] == list(range(len(row)))


def test_a_token_sees_its_own_row_up_to_itself_and_all_that_stands_before():
    for seed in range(20):
        bins = bins_of(drawn_rows(seed))
        mask = sees(bins, 3)
        for place, one in enumerate(bins):
            assert mask[place, :, :3].all()
            for at in one.places.values():
                for depth, token in enumerate(at):
                    assert torch.nonzero(mask[place, token, 3:]).flatten().tolist() == at[: depth + 1]


def test_padding_sees_itself():
    short, long = bins_of({0: (1,)})[0], bins_of({1: tuple(range(9))})[0]
    mask = sees([short, long], 0)
    assert mask.any(2).all()
    assert not mask[0, :1, 1:].any()


def test_what_rows_share_is_read_once():
    rows = dict(enumerate([(1, 2, 3, 4), (1, 2, 3, 5), (1, 2, 6), (1, 2), (1, 2, 3, 4)]))
    assert tokens_read(bins_of(rows)) == 6
    assert tokens_read(one_by_one(rows)) == sum(map(len, rows.values()))


def test_a_bin_is_no_wider_than_it_may_be_but_for_one_long_row():
    draw = random.Random(0)
    rows = {i: tuple(draw.randrange(9) for _ in range(draw.choice((3, 50, 3 * WIDTH)))) for i in range(80)}
    for one in bins_of(rows):
        assert len(one.ids) <= WIDTH or len(one.places) == 1


def test_no_rows_need_no_bin():
    assert bins_of({}) == one_by_one({}) == []


def test_padding_stands_on_the_right():
    assert padded([[1, 2], [3]]).tolist() == [[1, 2], [3, 0]]


def test_every_row_is_in_one_batch_that_fits():
    draw = random.Random(0)
    for _ in range(50):
        lengths = [draw.choice((1, 7, 50, 400, 3000)) + draw.randrange(20) for _ in range(draw.randrange(60))]
        batches = list(batches_by_length(lengths))
        assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
        for batch in batches:
            held = len(batch) * max(lengths[i] for i in batch)
            assert held <= forest.TOKENS_PER_BATCH or len(batch) == 1
