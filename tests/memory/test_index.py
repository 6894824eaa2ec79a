"""Exact search is brute force over what the rows stand for; lists find the same among fewer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from memtune.memory import index
from memtune.memory.index import Lists, all_pairs, build_lists, lengths_of, list_count, search
from memtune.memory.rounding import rounded

LISTS = 24


def unit(rows, d=16, seed=0):
    return F.normalize(torch.randn(rows, d, generator=torch.Generator().manual_seed(seed)), dim=1)


def brute(asked, stored, count):
    """Cosines in double precision, all of them held."""
    return (asked.double() @ F.normalize(stored.double(), dim=1).T).topk(min(count, len(stored)))


@pytest.fixture(scope="module")
def crowd():
    """3,000 stored vectors in 40 crowds, and 400 of them as somebody else would ask for them."""
    centres, own = unit(40), unit(3000, seed=1)
    stored = F.normalize(centres.repeat(75, 1) + 0.7 * own, dim=1)
    asked = F.normalize(stored[::7][:400] + 0.1 * unit(400, seed=2), dim=1)
    return asked, rounded(stored)


@pytest.fixture(scope="module")
def built(crowd):
    asked, stored = crowd
    return build_lists(stored, asked, 8, 0, LISTS)


@pytest.mark.parametrize("made", [rounded, lambda rows: rows], ids=["int8", "float32"])
@pytest.mark.parametrize(("together", "span", "block"), [(3, 1 << 16, 2048), (256, 128, 7), (1, 640, 640), (2, 64, 1)])
@pytest.mark.parametrize("count", [1, 5, 32])
def test_search_is_brute_force_however_it_is_cut(made, together, span, block, count, monkeypatch):
    for name, value in (("TOGETHER", together), ("SPAN", span), ("BLOCK", block), ("RUN", 8)):
        monkeypatch.setattr(index, name, value)
    asked, stored = unit(7), made(unit(1000, seed=3))
    cosines, numbers = search(asked, stored, count)
    expected = brute(asked, stored, count)
    assert numbers.tolist() == expected.indices.tolist()
    assert cosines.double().allclose(expected.values, atol=1e-6)
    assert (cosines.dtype, numbers.dtype) == (torch.float32, torch.int64)


def test_where_fewer_are_stored_all_of_them_are_found():
    cosines, numbers = search(unit(2), rounded(unit(3, seed=1)), 32)
    assert cosines.shape == (2, 3) and numbers.sort(1).values.tolist() == [[0, 1, 2]] * 2


def test_where_nothing_is_asked_or_stored_nothing_is_found():
    assert search(unit(0), rounded(unit(3)), 2)[1].shape == (0, 2)
    assert search(unit(3), rounded(unit(0)), 2)[1].shape == (3, 0)


def test_lengths_that_are_known_need_not_be_taken_again():
    asked, stored = unit(5), rounded(unit(300, seed=1))
    doubled = search(asked, stored, 3, 2 * lengths_of(stored))
    assert doubled[0].allclose(search(asked, stored, 3)[0] / 2)


def test_a_row_of_zeros_is_near_nothing():
    assert search(unit(1), torch.zeros(1, 16, dtype=torch.int8), 1)[0].tolist() == [[0.0]]


def test_the_scores_of_one_span_are_all_that_is_held(monkeypatch):
    monkeypatch.setattr(index, "TOGETHER", 4)
    monkeypatch.setattr(index, "SPAN", 64)
    held = [scores.shape for scores in index._scores(unit(4), rounded(unit(1000)), torch.ones(1000))]
    assert max(held) == (4, 64) and sum(width for _, width in held) == 1000


def test_pairs_are_asked_with_candidate_row_by_row():
    assert all_pairs(torch.tensor([[5, 6], [7, 8]])).tolist() == [[0, 5], [0, 6], [1, 7], [1, 8]]


def test_every_stored_vector_is_in_one_list(crowd, built):
    lists, _ = built
    assert lists.order.sort().values.tolist() == list(range(len(crowd[1])))
    assert (len(lists.offsets), int(lists.offsets[0]), int(lists.offsets[-1])) == (LISTS + 1, 0, len(crowd[1]))
    assert lists.offsets.diff().min() >= 0


def test_a_vector_is_in_the_list_of_the_nearest_centroid(crowd, built):
    lists, stored = built[0], crowd[1]
    nearest = brute(F.normalize(stored.float(), dim=1), lists.centroids, 1).indices.squeeze(1)
    sizes = lists.offsets.diff()
    assert nearest[lists.order].tolist() == torch.arange(LISTS).repeat_interleave(sizes).tolist()


def test_the_probes_are_as_few_as_agree_with_exact_search(crowd, built):
    (asked, stored), (lists, found) = crowd, built
    exact = search(asked, stored, 8)[1]

    def agreement(probes):
        numbers = replace(lists, probes=torch.tensor([probes])).search(asked, stored, 8)[1]
        best = (numbers[:, 0] == exact[:, 0]).double().mean()
        return float(best), float((numbers[:, :, None] == exact[:, None]).any(1).double().mean())

    assert found.probes == int(lists.probes) and 1 < found.probes < LISTS
    assert agreement(found.probes) == pytest.approx((found.best, found.candidates))
    assert found.best >= index.AGREEMENT > agreement(found.probes // 2)[0]


def test_where_too_many_lists_would_be_probed_there_are_none(crowd, built, monkeypatch):
    asked, stored = crowd
    monkeypatch.setattr(index, "USEFUL", (built[1].probes - 0.5) / LISTS)
    lists, found = build_lists(stored, asked, 8, 0, LISTS)
    assert len(lists.centroids) == len(lists.order) == 0 and found == built[1]


def test_with_all_lists_probed_the_search_is_exact(crowd, built):
    asked, stored = crowd
    every = replace(built[0], probes=torch.tensor([LISTS]))
    for mine, exact in zip(every.search(asked, stored, 32), search(asked, stored, 32), strict=True):
        assert mine.allclose(exact, atol=1e-6)


def test_many_find_in_company_what_each_finds_alone(crowd, built):
    asked, stored = crowd
    together = built[0].search(asked, stored, 32)
    alone = [built[0].search(row, stored, 32) for row in asked.split(1)]
    assert torch.cat([cosines for cosines, _ in alone]).allclose(together[0], atol=1e-6)
    assert torch.cat([numbers for _, numbers in alone])[:, 0].equal(together[1][:, 0])


@pytest.mark.parametrize("many", [1, 9])
def test_where_the_lists_hold_too_few_every_vector_is_compared(many, crowd, built):
    asked, stored = crowd
    one = replace(built[0], probes=torch.tensor([1]))
    cosines, numbers = one.search(asked[:many], stored, 2500)
    assert cosines.allclose(search(asked[:many], stored, 2500)[0], atol=1e-6)
    assert all(len(set(row)) == 2500 for row in numbers.tolist())


def test_without_lists_the_search_is_exact(crowd):
    asked, stored = crowd
    assert Lists.none(16).search(asked, stored, 5)[1].equal(search(asked, stored, 5)[1])


def test_a_small_file_has_no_lists(crowd):
    asked, stored = crowd
    lists, found = build_lists(stored, asked, 8, 0)
    assert len(lists.centroids) == list_count(len(stored)) == 0 and found.best == found.candidates == 1
    assert list_count(index.MANY + 1) > 0 and list_count(1_000_000) == 3968


def test_the_same_seed_gives_the_same_lists(crowd, built):
    asked, stored = crowd
    again, other = (build_lists(stored, asked, 8, seed, LISTS)[0] for seed in (0, 1))
    assert all(getattr(again, name).equal(tensor) for name, tensor in vars(built[0]).items())
    assert not other.centroids.equal(built[0].centroids)


def test_lists_cost_less_than_eight_bytes_a_question_beside_their_centroids(built, crowd):
    lists = built[0]
    assert lists.order.nbytes + lists.offsets.nbytes <= 8 * len(crowd[1])
    assert lists.centroids.nbytes == LISTS * 16
