"""The overhead benchmark teaches, asks and decodes both ways, and compares the times pair by pair."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import overhead


def test_measures_a_question_and_its_tokens_alone_and_behind_a_conversation(checkpoint):
    figures = overhead.measure(checkpoint, 4, sample=2, tokens=3, context=60)
    assert [run["context"] for run in figures["decode"]] == [0, 60]
    assert all(figure > 0 for figure in (*figures["question"].values(), figures["decode"][0]["ratio"]))


def test_a_prompt_is_as_long_as_it_is_wanted(backbone):
    short, long = (overhead.prompt(backbone, "Who?", context) for context in (0, 300))
    assert len(short) < 300 <= len(long) and long[-8:] == short[-8:]


def test_times_are_compared_pair_by_pair():
    pairs = [(2.0, 1.0), (30.0, 20.0), (4.0, 4.0)]
    assert overhead.compared(pairs, "one", "other") == pytest.approx({"one": 4.0, "other": 4.0, "ratio": 1.5})
