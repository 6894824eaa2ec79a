"""F1@K as the paper defines it."""

from __future__ import annotations

import pytest

from memtune.evidence.truth.f1 import f1_at, precision, recall_at, share


@pytest.mark.parametrize(
    ("supported", "unsupported", "k", "f1"),
    [
        (0, 0, 64, 0.0),
        (0, 12, 64, 0.0),
        (50, 10, 64, 0.8065),
        (20, 0, 64, 0.4762),
        (64, 0, 64, 1.0),
        (100, 0, 64, 1.0),  # more than K earn nothing
        (64, 64, 64, 0.6667),
        (1, 0, 1, 1.0),
    ],
)
def test_f1_at_k(supported, unsupported, k, f1):
    assert round(f1_at(supported, unsupported, k), 4) == f1


def test_its_parts():
    assert precision(0, 0) is None
    assert precision(3, 1) == 0.75
    assert recall_at(3, 4) == 0.75
    assert recall_at(5, 4) == 1.0


@pytest.mark.parametrize(("value", "said"), [(2 / 3, "0.667"), (1, "1.000"), (0.0, "0.000"), (None, "none")])
def test_pages_and_views_say_a_figure_alike(value, said):
    assert share(value) == said
