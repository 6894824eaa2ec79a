"""The benchmark of shards fits the same facts in one process and in shards, and compares the files."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import shards

from memtune import tune as tuning


@pytest.fixture
def row(fresh, config, monkeypatch):
    monkeypatch.setattr(tuning, "CHUNK", 2)
    one_after_the_other = lambda works: [shards.one_thread(*work) for work in works]  # noqa: E731
    return shards.measure(fresh, config, 2, one_after_the_other)


def test_both_ways_learn_all_and_leave_the_same_bytes(row):
    assert row["alone"]["learned"] == row["merge"]["learned"] == sum(shard["learned"] for shard in row["shards"]) == 6
    assert row["same_bytes"] is True
    assert row["plan"]["planned_seconds"] > 0


def test_the_speed_up_is_against_the_slowest_shard(row):
    slowest = max(shard["processor_seconds"] for shard in row["shards"])
    assert row["speed_up_in_processor_seconds"] == pytest.approx(row["alone"]["processor_seconds"] / slowest)
    assert row["speed_up_with_merge_in_seconds"] < row["speed_up_in_seconds"]
