"""What a plan said beside what tune took, and plans that say nothing about it."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from tiny import FACTS, write_facts

from memtune.errors import DataError, ProjectError
from memtune.evidence.forecast import FIGURES, Held, forecast
from memtune.ingest import ingest
from memtune.plan import plan
from memtune.tune import tune


@pytest.fixture
def keep(config, backbone, tmp_path):
    """Plans a project, and keeps the plan as a user does."""

    def keep(project):
        path = tmp_path / "plan.json"
        path.write_text(json.dumps(asdict(plan(project, config, watts=40, backbone=backbone))))
        return path

    return keep


@pytest.fixture
def planned(fresh, keep):
    return keep(fresh)


@pytest.fixture
def grown(done, config, backbone, tmp_path):
    """A tuned project that one more fact was ingested into."""
    facts = write_facts(tmp_path / "more.jsonl", [*FACTS, ("ferry", "When does the last ferry leave?", "At 23:40")])
    ingest(facts, done, config, backbone=backbone)
    return done


def test_seconds_and_bytes_are_compared(fresh, config, backbone, planned):
    spent = tune(fresh, config, backbone=backbone)
    found = forecast(fresh, planned)
    seconds, size = found.figures
    assert found.facts == spent.facts
    assert seconds.measured == spent.fit_seconds > 0
    assert 0 < spent.fit_seconds <= spent.seconds
    assert seconds.planned == json.loads(planned.read_text())["alone"]
    assert (size.planned, size.ratio) == (size.measured, 1.0)


def test_of_a_project_that_has_grown_the_whole_bank_is_compared_with_the_whole_bank(grown, keep, config, backbone):
    planned = keep(grown)
    assert tune(grown, config, backbone=backbone).already == len(FACTS)
    found = forecast(grown, planned)
    assert (found.facts, found.figures[1].ratio) == (1, 1.0)


def test_as_many_facts_to_fit_among_others_are_another_plan(grown, keep, config, backbone):
    planned = keep(grown)
    tune(grown, config, backbone=backbone)
    planned.write_text(json.dumps(json.loads(planned.read_text()) | {"facts": 99, "already": 98}))
    with pytest.raises(ProjectError, match=r"fitted 1 of 7 facts in one process, .* planned 1 of 99 facts"):
        forecast(grown, planned)


def test_before_tune_there_is_nothing_to_compare(fresh, planned):
    with pytest.raises(ProjectError, match="no finished tune"):
        forecast(fresh, planned)


def test_a_plan_for_other_facts_is_refused(fresh, config, backbone, planned):
    tune(fresh, config, backbone=backbone)
    planned.write_text(json.dumps(json.loads(planned.read_text()) | {"facts": 99}))
    with pytest.raises(ProjectError, match="planned 99"):
        forecast(fresh, planned)


PLAN = {"facts": 6, "already": 0, "alone": 1.5, "bank_bytes": 99, "shards": []}
SPOILT = [json.dumps(PLAN | {name: value}) for name in FIGURES for value in ("x", None, True, [1], -1, 10**400)]


@pytest.mark.parametrize(
    "content", ["", "[]", '{"facts": 3}', "not json", "[" * 200_000, *SPOILT], ids=lambda c: c[:80]
)
def test_a_file_that_is_no_plan_is_named(fresh, tmp_path, content):
    path = tmp_path / "plan.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"plan\.json"):
        forecast(fresh, path)


def test_a_ratio_to_nothing_is_no_number():
    assert Held("seconds", 0.0, 1.0).ratio != Held("seconds", 0.0, 1.0).ratio
