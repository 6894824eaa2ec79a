"""``fit_step``: loss, odds and expected row of every answer token, without its logits."""

from __future__ import annotations

import importlib

import pytest
import torch
from memtune_kernels import fit_step, reference, tuning
from problems import fit_problem


def _assert_right(problem, rtol=2e-5, rows=2e-5):
    found, expected = fit_step(**problem), reference.fit_step(**problem)
    for name, mine, wanted in zip(found._fields, found, expected, strict=True):
        tolerance = rows if name == "expected" else rtol
        torch.testing.assert_close(
            mine.double(), wanted, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [(torch.float32, torch.float32), (torch.bfloat16, torch.float32), (torch.float16, torch.float32)],
    ids=str,
)
def test_agrees_with_a_softmax_over_the_whole_vocabulary(device, dtype, stored):
    _assert_right(fit_problem(dtype, stored, device))


def test_probabilities_are_rounded_to_the_dtype_of_the_rows_they_weigh(device):
    _assert_right(fit_problem(torch.bfloat16, torch.bfloat16, device), rows=0.02)


def test_without_values_it_reads_the_head_alone_and_expects_its_rows(device):
    problem = fit_problem(torch.float32, torch.float32, device)
    _assert_right(problem | {"values": None})
    _assert_right(problem | {"values": None, "seen": problem["head"]})


def test_the_vocabulary_may_be_shared_out_between_programs(device):
    problem = fit_problem(torch.float32, torch.float32, device)
    with tuning.override("fit_step", shares=5, block_vocabulary=16):
        _assert_right(problem)


def test_many_tokens_are_taken_in_parts(device, monkeypatch):
    module = importlib.import_module("memtune_kernels.fit_step")
    monkeypatch.setattr(module, "TOKENS", 8)
    monkeypatch.setattr(module, "PLAIN_TOKENS", 8)
    _assert_right(fit_problem(torch.float32, torch.float32, device))


def test_near_certainty_neither_odds_nor_direction_are_lost(device):
    """At p = 1 - 1e-12 float32 knows p as 1 and 1 - p as 0; a filtered gradient is 0 as well. The fit must go on."""
    problem = fit_problem(torch.float32, torch.float32, device)
    # Each state points along its target's head row, and makes its logit some 28 higher than any other.
    rows = problem["head"][problem["targets"]]
    problem["hidden"] = rows * 60 / rows.square().sum(1, keepdim=True)
    problem["values"] = torch.zeros_like(problem["values"])
    odds = reference.fit_step(**problem)[2]
    assert odds.min() > 20
    assert fit_step(**problem).log_prob.max() <= 0
    _assert_right(problem)


def test_a_tile_that_holds_the_target_alone_has_no_others_and_is_no_trouble(device):
    problem = fit_problem(torch.float32, torch.float32, device)
    for name in ("head", "seen"):
        problem[name] = problem[name][:33]  # tiles of 32: the last one is token 32
    problem["targets"] = torch.full_like(problem["targets"], 32)
    _assert_right(problem)


def test_no_tokens_give_no_rows(device):
    problem = fit_problem(torch.float32, torch.float32, device)
    for name in ("hidden", "values", "targets"):
        problem[name] = problem[name][:0]
    found = fit_step(**problem)
    assert found.odds.shape == (0,)
    assert found.expected.shape == (0, 20)


def test_refuses_what_does_not_fit(device):
    problem = fit_problem(torch.float32, torch.float32, device)
    with pytest.raises(ValueError, match="do not fit each other"):
        fit_step(**problem | {"head": problem["head"][:99]})
    with pytest.raises(ValueError, match=r"seen is torch\.float16"):
        fit_step(**problem | {"seen": problem["seen"].half()})
