"""Which experts of a fact speak at a step: a softmax over cosine less distance, within the fact's own run."""

from __future__ import annotations

import math

import pytest
import torch

from memtune.memory.attention import BETA, SLOPE, expert_attention
from memtune.memory.rounding import quantised

EXPERTS, D_KEY, D_VALUE = 20, 8, 6


@pytest.fixture
def bank():
    """Keys, values and the scales of the value rows."""
    draw = torch.Generator().manual_seed(0)
    keys, values = (torch.randn(EXPERTS, width, generator=draw) for width in (D_KEY, D_VALUE))
    return keys, values, torch.ones(EXPERTS)


def unit_rows(count, seed=1):
    return torch.nn.functional.normalize(
        torch.randn(count, D_KEY, generator=torch.Generator().manual_seed(seed)), dim=-1
    )


def plain_loop(query, step, first, count, keys, values, scales):
    """The formula, one number after the other, in float64."""
    scores = []
    for row in range(count):
        key = [float(x) for x in keys[first + row]]
        norm = math.sqrt(sum(x * x for x in key))
        cosine = sum(float(q) * k for q, k in zip(query, key, strict=True)) / norm
        scores.append(BETA * (cosine - SLOPE * abs(row - step)))
    weights = [math.exp(score - max(scores)) for score in scores]
    mixed = [0.0] * values.shape[1]
    for row, weight in enumerate(weights):
        for column in range(values.shape[1]):
            mixed[column] += weight / sum(weights) * float(values[first + row, column]) * float(scales[first + row])
    return torch.tensor(mixed, dtype=torch.float64)


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_it_is_the_formula(bank, kind):
    if kind == "int8":
        keys, values, _ = bank
        bank = quantised(keys)[0], *quantised(values)
    queries = unit_rows(8)
    steps = torch.tensor([0, 0, 3, 1, 2, 4, 9, 0])
    runs = torch.tensor([[0, 1], [0, 5], [0, 5], [5, 3], [5, 3], [8, 12], [8, 12], [19, 1]])
    mixed = expert_attention(queries, steps, runs, *bank)
    expected = [
        plain_loop(query, step, first, count, *bank)
        for query, step, (first, count) in zip(queries, steps.tolist(), runs.tolist(), strict=True)
    ]
    torch.testing.assert_close(mixed.double(), torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_a_fact_with_one_expert_gives_its_value_exactly(bank):
    rows = torch.arange(EXPERTS)
    runs = torch.stack([rows, torch.ones_like(rows)], 1)
    assert torch.equal(expert_attention(unit_rows(EXPERTS), torch.zeros_like(rows), runs, *bank), bank[1])


def test_experts_of_other_facts_count_nothing(bank):
    arguments = unit_rows(2), torch.tensor([1, 0]), torch.tensor([[4, 3], [10, 2]])
    mixed = expert_attention(*arguments, *bank)
    others = torch.ones(EXPERTS, dtype=torch.bool)
    others[[4, 5, 6, 10, 11]] = False
    keys, values, scales = (rows.clone() for rows in bank)
    keys[others], values[others], scales[others] = 7.0, float("inf"), float("nan")
    assert torch.equal(expert_attention(*arguments, keys, values, scales), mixed)


def test_the_position_decides_where_the_cosine_does_not(bank):
    _, values, scales = bank
    alike = unit_rows(1).expand(EXPERTS, -1)
    steps = torch.arange(5)
    mixed = expert_attention(alike[:5], steps, torch.tensor([[7, 5]]).expand(5, -1), alike, values, scales)
    torch.testing.assert_close(mixed, values[7:12], rtol=0, atol=1e-3)


def test_bfloat16_rows_are_mixed_in_float32(bank):
    keys, values, scales = (rows.bfloat16() for rows in bank)
    arguments = unit_rows(1), torch.tensor([1]), torch.tensor([[2, 4]])
    mixed = expert_attention(*arguments, keys, values, scales.float())
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, expert_attention(*arguments, keys.float(), values.float(), scales.float()))
