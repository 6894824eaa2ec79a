"""The growth benchmark runs from synthetic facts to its figures, and its exponents are slopes in log-log."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import growth


def test_measures_one_size_from_the_file_to_the_answers(checkpoint):
    row = growth.measure(6, checkpoint, sample=4)
    assert row["learned"] == row["facts"] == 6
    assert row["answer_tokens"] > 6 and row["bytes_per_fact"] * 6 == row["project_bytes"] > 0
    assert 0 <= row["paraphrase_recall"] <= 1
    assert all(row[key] > 0 for key in growth.GROWING)


def test_what_doubles_with_the_facts_has_exponent_one():
    rows = [{"facts": n} | dict.fromkeys(growth.GROWING, 3.0 * n) for n in (10, 100, 1000)]
    assert growth.exponents(rows) == pytest.approx(dict.fromkeys(growth.GROWING, 1.0))
