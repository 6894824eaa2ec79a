"""The sweep doubles until recall breaks or it may go no further. What learns is scripted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from memtune.config import Config
from memtune.events import Note
from memtune.evidence.storage import sweep as sweeping
from memtune.evidence.storage.pool import Pool
from memtune.evidence.storage.randomization import LENGTH, RANDOM, Arm, Stored
from memtune.evidence.storage.sweep import FLOOR, sweep

ARM = Arm(
    learner="memory",
    answers=RANDOM,
    facts=8,
    tokens=200,
    at_target=8,
    exact=8,
    rounds=4,
    again=0,
    points=(),
    loss_mean=0.0,
    loss_max=0.0,
    seconds=1.0,
    processor_seconds=1.0,
    stored=Stored(200, 32200, 32800, 40000),
    bits=1323.0,
    details="",
)


@pytest.fixture
def run(monkeypatch):
    """Sizes and recalls of a sweep whose memories say ``exact(facts)`` answers; what was taught and said beside."""
    taught, notes = [], []

    def run(exact, most):
        def teach(answers, facts, memory, backbone, config, on_event):
            assert answers == RANDOM
            taught.append(facts)
            return replace(ARM, facts=len(facts), exact=exact(len(facts)))

        monkeypatch.setattr(sweeping, "made_memory", lambda facts, backbone, config, on_event: (None, None))
        monkeypatch.setattr(sweeping, "teach_memory", teach)
        arms = sweep(ARM, Pool(None, 0), most, None, Config(), notes.append)
        return [(arm.facts, arm.exact) for arm in arms]

    run.taught, run.notes = taught, notes
    return run


def test_it_doubles_up_to_the_bound(run):
    assert run(lambda facts: facts, 50) == [(8, 8), (16, 16), (32, 32), (50, 50)]
    assert [len(facts) for facts in run.taught] == [16, 32, 50]
    assert run.notes[0] == Note("sweep: 16 random answers")


def test_it_ends_where_recall_breaks(run):
    assert run(lambda facts: facts if facts < 32 else facts // 2, 1000) == [(8, 8), (16, 16), (32, 16)]


def test_a_recall_at_the_floor_is_not_broken(run):
    assert run(lambda facts: facts - (facts >= 100), 200)[-2:] == [(128, 127), (200, 199)]
    assert FLOOR == 0.99


def test_nothing_is_swept_below_the_first(run):
    assert run(lambda facts: facts, 8) == run(lambda facts: facts, 3) == [(8, 8)]


def test_every_memory_learns_random_answers_to_the_same_first_questions(run):
    run(lambda facts: facts, 32)
    small, large = run.taught
    assert large[: len(small)] == small
    assert all(len(fact.answer) == LENGTH for fact in large)
