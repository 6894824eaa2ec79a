"""A plan says which facts each shard takes and how long; it leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import FACTS

from memtune import tune as tuning
from memtune.plan import plan
from memtune.shards import Shard
from memtune.tune_shard import tune_shard


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(tuning, "CHUNK", 2)


def test_the_shards_are_all_facts_in_their_order(fresh, config, backbone):
    before = {path.name: path.read_bytes() for path in fresh.iterdir()}
    made = plan(fresh, config, shards=2, backbone=backbone)
    assert [(shard.shard, shard.facts) for shard in made.shards] == [("1/2", 2), ("2/2", 4)]
    ends = [(shard.first, shard.last) for shard in made.shards]
    assert ends == [(FACTS[0][0], FACTS[1][0]), (FACTS[2][0], FACTS[-1][0])]
    assert made.facts == len(FACTS) and (made.already, made.timed) == (0, 2)
    assert {path.name: path.read_bytes() for path in fresh.iterdir()} == before


def test_seconds_go_with_the_answer_tokens_and_the_slowest_shard_counts(fresh, config, backbone):
    made = plan(fresh, config, shards=2, backbone=backbone)
    rates = [shard.seconds / shard.answer_tokens for shard in made.shards]
    assert rates[0] == pytest.approx(rates[1]) and rates[0] > 0
    assert made.seconds == max(shard.seconds for shard in made.shards)
    assert made.alone == pytest.approx(sum(shard.seconds for shard in made.shards))


def test_the_bytes_are_those_of_the_files(fresh, config, backbone):
    planned = plan(fresh, config, shards=2, backbone=backbone).shards[1]
    result = tune_shard(fresh, config, Shard(2, 2), backbone=backbone)
    header = 4096  # of the file, at most
    assert planned.bytes <= Path(result.file).stat().st_size <= planned.bytes + header


def test_of_a_tuned_project_nothing_is_left_to_do(done, config, backbone):
    made = plan(done, config, shards=3, backbone=backbone)
    assert (made.already, made.timed, made.seconds) == (len(FACTS), 0, 0.0)
    assert [shard.facts for shard in made.shards] == [0, 0, 0]


def test_memtune_costs_its_seconds_and_another_way_its_operations(fresh, config, backbone):
    made = plan(fresh, config, shards=1, watts=30, backbone=backbone)
    ours, full = made.costs
    assert (ours.way, ours.seconds, ours.bytes) == ("memtune", made.alone, made.shards[0].bytes)
    assert 0 < ours.flops < full.flops and full.epochs == 100
    assert made.watts == 30


def test_nothing_left_costs_nothing(done, config, backbone):
    assert plan(done, config, shards=1, backbone=backbone).costs == ()
