"""What a plan said beside what tune took, and plans that say nothing about it."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from memtune.errors import DataError, ProjectError
from memtune.evidence.forecast import Held, forecast
from memtune.plan import plan
from memtune.tune import tune


@pytest.fixture
def planned(fresh, config, backbone, tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(asdict(plan(fresh, config, watts=40, backbone=backbone))))
    return path


def test_seconds_and_bytes_are_compared(fresh, config, backbone, planned):
    spent = tune(fresh, config, backbone=backbone)
    found = forecast(fresh, planned)
    seconds, size = found.figures
    assert found.facts == spent.facts
    assert seconds.measured == spent.fit_seconds > 0
    assert 0 < spent.fit_seconds <= spent.seconds
    assert seconds.planned == json.loads(planned.read_text())["alone"]
    assert (size.planned, size.ratio) == (size.measured, 1.0)


def test_before_tune_there_is_nothing_to_compare(fresh, planned):
    with pytest.raises(ProjectError, match="no finished tune"):
        forecast(fresh, planned)


def test_a_plan_for_other_facts_is_refused(fresh, config, backbone, planned):
    tune(fresh, config, backbone=backbone)
    planned.write_text(json.dumps(json.loads(planned.read_text()) | {"facts": 99}))
    with pytest.raises(ProjectError, match="planned 99"):
        forecast(fresh, planned)


@pytest.mark.parametrize("content", ["", "[]", '{"facts": 3}', "not json"])
def test_a_file_that_is_no_plan_is_named(fresh, tmp_path, content):
    path = tmp_path / "plan.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"plan\.json"):
        forecast(fresh, path)


def test_a_ratio_to_nothing_is_no_number():
    assert Held("seconds", 0.0, 1.0).ratio != Held("seconds", 0.0, 1.0).ratio
