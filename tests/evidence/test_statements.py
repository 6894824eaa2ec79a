"""A long answer is read statement by statement."""

from __future__ import annotations

import pytest

from memtune.evidence.truth.statements import statements


@pytest.mark.parametrize(
    ("answer", "parts"),
    [
        ("One is red. Two is blue!", ["One is red.", "Two is blue!"]),
        ("One is red; two is blue.", ["One is red", "two is blue."]),
        ("It costs £4.50 at most. It is 18.5 m.", ["It costs £4.50 at most.", "It is 18.5 m."]),
        ("1. Lift the lid.\n2) Wait.\n- Close it", ["Lift the lid.", "Wait.", "Close it"]),
        ("# Heading\nText", ["Heading", "Text"]),
        ("It has parts, e.g. a valve.", ["It has parts, e.g. a valve."]),
        ("Ask Dr. Brock or J. Quell.", ["Ask Dr. Brock or J. Quell."]),
        ('He said "It is red." Then he left.', ['He said "It is red.', "Then he left."]),
        ("等待十秒。然后关上。", ["等待十秒。", "然后关上。"]),
        ("Is it red? It is.", ["It is."]),
        ("The parts are:\n- a valve", ["a valve"]),
        ("---\n\n***", []),
        ("", []),
    ],
)
def test_statements(answer, parts):
    assert statements(answer) == parts


def test_what_was_cut_off_is_no_statement():
    assert statements("One is red. Two is", whole=False) == ["One is red."]
    assert statements("One is red. Two is blue.", whole=False) == ["One is red.", "Two is blue."]
    assert statements("Two is", whole=False) == []
