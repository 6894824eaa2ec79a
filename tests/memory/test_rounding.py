"""Rows in eight bits: the same direction, and with a scale the same row, but for half a level."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from memtune.memory.rounding import quantised, rounded


def test_rounding_keeps_the_direction_and_uses_all_of_eight_bits():
    rows = F.normalize(torch.randn(50, 384, generator=torch.Generator().manual_seed(0)), dim=1)
    kept = rounded(rows)
    assert (kept.dtype, kept.abs().amax(1).tolist()) == (torch.int8, [127] * 50)
    assert (F.normalize(kept.float(), dim=1) * rows).sum(1).min() > 0.9998
    assert rounded(torch.zeros(1, 4)).tolist() == [[0] * 4]


def test_a_rounded_row_is_nowhere_further_off_than_half_a_level():
    rows = torch.randn(50, 128, generator=torch.Generator().manual_seed(0)) * torch.logspace(-20, 20, 50)[:, None]
    levels, scales = quantised(rows)
    assert levels.dtype == torch.int8 and levels.abs().amax(1).tolist() == [127] * 50
    errors = (levels.double() * scales.double()[:, None] - rows.double()).abs().amax(1)
    assert (errors <= scales.double() * 0.50001).all()


def test_a_row_of_zeros_stays_one():
    levels, scales = quantised(torch.zeros(2, 128))
    assert not levels.any() and not scales.any()


def test_a_row_is_rounded_the_same_whatever_stands_beside_it():
    rows = torch.randn(9, 128, generator=torch.Generator().manual_seed(0))
    levels, scales = quantised(rows)
    alone, scale = quantised(rows[4:5])
    assert torch.equal(alone[0], levels[4]) and torch.equal(scale[0], scales[4])
