"""A shard is a whole number of chunks; its file says what it was fitted for, and one that is damaged is none."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import chain

import pytest
from safetensors import safe_open

from memtune.errors import ConfigError
from memtune.project import Project
from memtune.shards import Kept, Origin, Shard, keep_shard, kept_shards
from memtune.store import load_memory, save_tensors

CHUNKS = [[0, 1], [2, 4], [5, 6], [7, 9], [10]]


@pytest.fixture
def project(fresh):
    return Project(fresh)


@pytest.fixture
def keep(project, config):
    """Keeps a shard that has done so many of three chunks."""

    def run(done, number=1, **changes):
        nothing = Kept.nothing(Shard(4, number), Origin.of(project, config), project.root)
        return keep_shard(project, replace(nothing, chunks=3, done=done, **changes), load_memory(project).bank)

    return run


@pytest.mark.parametrize("of", [1, 2, 3, 5, 8])
def test_the_parts_are_all_chunks_each_once_in_their_order(of):
    parts = [Shard(of, number).part(CHUNKS) for number in range(1, of + 1)]
    assert list(chain.from_iterable(parts)) == CHUNKS
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_shard_is_named_by_its_number():
    assert Shard.parse("3/8") == Shard(8, 3)
    assert str(Shard(8, 3)) == "3/8"


@pytest.mark.parametrize("text", ["0/8", "9/8", "3", "3/", "a/b", "", "-1/8", "3/8/2"])
def test_a_number_that_is_none_is_refused_with_an_example(text):
    with pytest.raises(ConfigError) as caught:
        Shard.parse(text)
    assert repr(text) in str(caught.value) and "1/8" in caught.value.hint


def test_auto_is_the_rank_of_the_process_counted_from_one(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert Shard.parse("auto") == Shard(2, 1)


@pytest.mark.parametrize(("rank", "world"), [(None, None), ("2", "2"), ("x", "2")])
def test_auto_without_a_launcher_says_which_one_to_use(monkeypatch, rank, world):
    for name, value in (("RANK", rank), ("WORLD_SIZE", world)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        Shard.parse("auto")
    assert "torchrun" in caught.value.hint


def test_what_is_kept_is_read_again_and_replaces_what_was_there(project, keep):
    keep(1)
    kept = keep(2, reasons={3: "its question takes the null route"}, seconds=1.5, facts=6, learned=4)
    assert kept_shards(project) == [kept]
    assert not kept.finished and keep(3).finished


def test_of_a_shard_that_stands_there_twice_the_further_one_counts(project, keep):
    early = keep(1)
    copy = early.path.read_bytes()
    late = keep(2)
    early.path.write_bytes(copy)
    assert kept_shards(project) == [late]


def test_a_damaged_file_is_no_shard(project, keep):
    keep(1, number=2)
    path = keep(1).path
    path.write_bytes(path.read_bytes()[:-1])
    assert [kept.shard.number for kept in kept_shards(project)] == [2]


@pytest.mark.parametrize(
    "change",
    [
        {"seconds": None},
        {"done": "x"},
        {"reasons": []},
        {"shard": {"of": 4}},
        {"shard": 3},
        {"origin": {}},
        {"origin": {"model": "", "facts": "", "router": "", "bank": "", "until_loss": 0.1, "more": 1}},
    ],
    ids=str,
)
def test_a_shard_of_another_version_is_none(project, keep, change):
    """It stands in nobody's way: it is named as a sound file is, and only its header is another."""
    keep(1, number=2)
    path = keep(1).path
    with safe_open(path, framework="pt") as file:
        entries = json.loads(file.metadata()["shard"]) | change
    path.unlink()
    save_tensors(project, "shard_1_of_4", load_memory(project).bank.state_dict(), shard=json.dumps(entries))
    assert [kept.shard.number for kept in kept_shards(project)] == [2]


def test_a_change_of_the_memory_removes_the_shards_and_an_export_does_not(project, keep):
    keep(1)
    with project.writing():
        project.commit({}, exports=[])
        assert len(kept_shards(project)) == 1
        project.commit({"log": project.keep("log", "jsonl", lambda path: path.write_text("{}"))})
    assert kept_shards(project) == []


def test_what_differs_is_said_in_words(project, config):
    mine = Origin.of(project, config)
    assert (
        mine.differs(replace(mine, until_loss=0.5, bank="")) == "another state of the memory and another --until-loss"
    )
