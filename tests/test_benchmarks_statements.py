"""The figures on the page of ``memtune score`` come from here: the rules over statements about the examples."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

from statements import measure  # noqa: E402

RESULTS = json.loads((ROOT / "benchmarks" / "results" / "statements.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def figures():
    return measure(ROOT / "examples")


@pytest.mark.parametrize("key", ["facts", "statements", "held_out", "answers"])
def test_the_results_beside_the_benchmark_are_what_the_rules_say_now(figures, key):
    assert figures[key] == RESULTS[key]


def test_no_wrong_statement_is_supported_and_no_right_one_contradicted(figures):
    for name in ("statements", "held_out"):
        verdicts = figures[name]["verdicts"]
        assert verdicts["false"]["supported"] == verdicts["true"]["contradicted"] == 0
