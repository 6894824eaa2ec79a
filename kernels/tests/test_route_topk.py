"""``route_topk``: the k nearest keys of every question, as a sort of all scores would give them."""

from __future__ import annotations

import pytest
import torch
from memtune_kernels import reference, route_topk, tuning
from problems import DTYPES


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_finds_what_a_full_sort_finds(device, dtype):
    questions, keys = torch.randn(18, 40).to(device, dtype), torch.randn(110, 40).to(device, dtype)
    scores, indices = route_topk(questions, keys, 5)
    expected, order = reference.route_topk(questions, keys, 5)
    assert torch.equal(indices, order)
    torch.testing.assert_close(scores, expected.float(), rtol=1e-5, atol=1e-5)


def test_of_equal_scores_the_lower_index_comes_first_however_the_keys_are_shared_out(device):
    keys = torch.randn(10, 16).repeat(12, 1).to(device)  # each key twelve times, in every tile and share
    questions = torch.randn(3, 16).to(device)
    expected = reference.route_topk(questions, keys, 14)[1]
    for programs in (1, 4):
        with tuning.override("route_topk", programs_per_processor=programs):
            assert torch.equal(route_topk(questions, keys, 14)[1], expected)


def test_zero_is_zero_with_either_sign(device):
    questions = torch.zeros(1, 16, device=device)
    keys = torch.randn(70, 16).to(device)  # products of zero are 0.0 and -0.0, by the signs of the keys
    scores, indices = route_topk(questions, keys, 6)
    assert indices.tolist() == [[0, 1, 2, 3, 4, 5]]
    assert not scores.any()


def test_scores_below_zero_are_in_order(device):
    keys = -torch.arange(1.0, 41.0).to(device)[:, None].expand(-1, 16) / 16
    scores, indices = route_topk(torch.ones(1, 16, device=device), keys, 4)
    assert indices.tolist() == [[0, 1, 2, 3]]
    assert scores.tolist() == [[-1.0, -2.0, -3.0, -4.0]]


@pytest.mark.parametrize("k", [1, 7])
def test_takes_all_keys_where_there_are_only_k(device, k):
    questions, keys = torch.randn(2, 8).to(device), torch.randn(k, 8).to(device)
    assert torch.equal(route_topk(questions, keys, k)[1], reference.route_topk(questions, keys, k)[1])


def test_no_questions_find_nothing(device):
    scores, indices = route_topk(torch.zeros(0, 8, device=device), torch.randn(9, 8).to(device), 3)
    assert scores.shape == indices.shape == (0, 3)


@pytest.mark.parametrize("k", [0, 10])
def test_refuses_a_k_that_the_keys_cannot_give(device, k):
    with pytest.raises(ValueError, match=f"k = {k} of 9 keys"):
        route_topk(torch.zeros(1, 8, device=device), torch.zeros(9, 8, device=device), k)


def test_refuses_keys_of_another_width_or_dtype(device):
    questions = torch.zeros(1, 8, device=device)
    with pytest.raises(ValueError, match=r"\(1, 8\) and keys \(9, 7\)"):
        route_topk(questions, torch.zeros(9, 7, device=device), 1)
    with pytest.raises(ValueError, match=r"questions are torch\.float32, keys torch\.float16"):
        route_topk(questions, torch.zeros(9, 8, device=device).half(), 1)
