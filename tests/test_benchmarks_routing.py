"""The routing benchmark puts questions together that stand as near each other as read ones, and measures both ways."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import routing

from memtune.evidence import synthetic
from memtune.memory import index

READ = 6 * len(synthetic.RELATIONS)


@pytest.fixture(scope="module")
def facts():
    return list(synthetic.facts(READ))


@pytest.fixture(scope="module")
def parts(backbone, facts):
    return routing.read_parts(backbone, facts)


def test_the_parts_of_a_question_add_up_to_its_vector(backbone, memory, facts, parts):
    assert parts.shape[:3] == (3, READ, 3)
    reader = memory.router.reader
    asked = [backbone.prompts.question(fact.paraphrases[1]) for fact in facts]
    frames = [relation[2].format("") for relation in synthetic.RELATIONS]
    mine = routing._column(backbone, reader, [fact.paraphrases[1] for fact in facts], frames)
    vectors = memory.router.reader.read(asked, backbone.states.early(asked)).vectors
    assert F.normalize(mine.sum(1), dim=1).allclose(vectors, atol=1e-5)


def test_every_part_of_every_question_was_found(parts):
    assert parts.norm(dim=-1).min() > 0


def test_no_two_keys_are_put_together_alike(parts):
    crowd = routing.Crowd(parts, 0)
    keys = READ // len(synthetic.RELATIONS) * READ
    assert len({tuple(row) for row in crowd.vectors(torch.arange(keys), 0).tolist()}) == keys


def test_measures_both_ways_in_one_run(parts, monkeypatch):
    monkeypatch.setattr(index, "USEFUL", 1.0)
    row = routing.measure(parts, 200, 80, 0, lists=8)
    assert row["lists"] == 8 and 1 <= row["chosen"]["probes"] <= 8
    assert 0 <= row["agreement"]["candidates"] <= row["agreement"]["best"] <= 1
    assert row["bytes_per_key"]["lists"] <= 8
    assert all(figure > 0 for way in (*row["ways"].values(), row["all_at_once"]) for figure in way.values())


def test_agreement_counts_what_is_as_near_as_the_exact_candidates():
    exact = torch.linspace(1, 0.5, 32).repeat(2, 1)
    found = exact.clone()
    found[1, 0], found[1, -1] = 0.9, 0.4
    assert routing._agreement(exact, found) == {"best": 0.5, "candidates": 63 / 64}
