"""Shards that are merged are the memory of one run, byte for byte; what does not belong together is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tiny import FACTS, write_facts

import memtune
from memtune import teaching
from memtune import tune as tuning
from memtune.asking import Asker
from memtune.errors import ProjectError
from memtune.events import Note
from memtune.ingest import ingest
from memtune.memory.fit import fit_values
from memtune.merge import merge
from memtune.project import Project
from memtune.shards import Shard, kept_shards
from memtune.store import load_memory
from memtune.tune import tune
from memtune.tune_shard import tune_shard


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(tuning, "CHUNK", 2)


@pytest.fixture
def fit(fresh, config, backbone):
    """Fits some shards."""

    def run(*numbers, of=2, project=fresh, **changes):
        for number in numbers:
            assert tune_shard(project, config.with_flags(**changes), Shard(of, number), backbone=backbone).met

    return run


@pytest.fixture
def merged(fresh, config, backbone):
    def run(on_event=lambda event: None, **changes):
        return merge(fresh, config.with_flags(**changes), backbone=backbone, on_event=on_event)

    return run


@pytest.fixture
def refused(fresh, merged):
    """What merge says, and that it changes nothing."""

    def run(**changes):
        before = {path.name: path.read_bytes() for path in fresh.iterdir()}
        with pytest.raises(ProjectError) as caught:
            merged(**changes)
        assert {path.name: path.read_bytes() for path in fresh.iterdir()} == before
        return str(caught.value), caught.value.hint

    return run


def files_of(project):
    return {kind: record["sha256"] for kind, record in Project(project).state["files"].items()}


SHARD = """
    import sys
    from pathlib import Path
    import torch
    from memtune import tune as tuning
    from memtune.cli import main

    torch.set_num_threads(1)
    tuning.CHUNK = 2
    sys.argv = ["memtune", "tune", "--shard", "auto", "--project", sys.argv[1], "--json"]
    main()
"""


def test_two_processes_at_once_leave_the_bytes_of_one(fresh, tmp_path, config, backbone, merged, monkeypatch):
    one = shutil.copytree(fresh, tmp_path / "one")
    alone = tune(one, config, backbone=backbone)
    paths = os.pathsep.join([str(Path(memtune.__file__).parents[1])])
    shards = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SHARD), fresh],
            env=os.environ | {"PYTHONPATH": paths, "RANK": str(rank), "WORLD_SIZE": "2"},
            stdout=subprocess.PIPE,
            cwd=tmp_path,
        )
        for rank in range(2)
    ]
    said = [json.loads(shard.communicate()[0]) for shard in shards]
    assert [(result["shard"], result["learned"]) for result in said] == [("1/2", 2), ("2/2", 4)]
    result = merged()
    assert result.met and result.verified_exact == len(FACTS)
    assert files_of(fresh) == files_of(one)
    assert sorted(path.name for path in fresh.iterdir()) == sorted(path.name for path in one.iterdir())
    assert (result.loss_max, result.worst_token, result.already) == (alone.loss_max, alone.worst_token, 0)


def test_any_number_of_shards_leaves_the_same_bytes(fresh, tuned_in_twos, fit, merged):
    fit(1, 2, 3, 4, 5, of=5)
    merged()
    assert files_of(fresh) == files_of(tuned_in_twos)


@pytest.fixture
def taught(tuned, tmp_path):
    """Another project, which was tuned before."""
    return shutil.copytree(tuned, tmp_path / "taught")


@pytest.fixture
def tuned_in_twos(ingested, tmp_path, config, backbone):
    project = shutil.copytree(ingested, tmp_path / "in twos")
    tune(project, config, backbone=backbone)
    return project


def test_facts_that_were_learned_before_stay_as_they_are(taught, tmp_path, config, backbone, fit):
    more = [*FACTS, *((f"unit-{i}", f"What is the code of unit {i}?", f"HT-{7 * i:03}") for i in range(7))]
    ingest(write_facts(tmp_path / "more.jsonl", more), taught, config, backbone=backbone)
    one = shutil.copytree(taught, tmp_path / "one")
    alone = tune(one, config, backbone=backbone)
    fit(1, 2, 3, of=3, project=taught)
    result = merge(taught, config, backbone=backbone)
    assert (result.already, result.learned) == (alone.already, alone.learned) and result.already > 0
    assert files_of(taught) == files_of(one)


def test_a_fact_that_a_shard_could_not_learn_is_listed_with_its_reason(fresh, fit, merged, monkeypatch):
    monkeypatch.setattr(teaching, "fit_values", lambda *of, **how: fit_values(*of, **how) * 0)
    fit(2)
    monkeypatch.undo()
    monkeypatch.setattr(tuning, "CHUNK", 2)
    fit(1)
    result = merged()
    assert not result.met and result.learned == 2
    assert [failed.id for failed in result.failed] == [name for name, _, _ in FACTS[2:]]
    assert all("nats per answer token after" in failed.reason for failed in result.failed)


def test_generation_is_asked_again_when_all_is_there(fit, merged, monkeypatch):
    fit(1, 2)
    monkeypatch.setattr(teaching, "SAMPLE", 4)
    assert merged(verify="sample").verified == 4


def test_merged_twice_is_merged_once(fresh, fit, merged):
    fit(1, 2)
    first = merged()
    before = (fresh / "project.json").read_bytes()
    events = []
    assert merged(events.append) == first
    assert events == [Note("no shards are here: the memory stays as it was left")]
    assert (fresh / "project.json").read_bytes() == before


def test_missing_shards_are_named_with_the_command(fresh, fit, refused):
    fit(1, 3, of=5)
    assert refused() == ("shards 2, 4, 5 of 5 are missing", f"run: memtune tune --shard 2/5 --project {fresh}")


def test_a_shard_that_was_stopped_is_named_too(fresh, config, backbone, fit, refused, monkeypatch):
    fit(1)

    def stop(self, numbers, taught=teaching.Teacher.chunk):
        taught(self, numbers)
        raise KeyboardInterrupt

    monkeypatch.setattr(teaching.Teacher, "chunk", stop)
    assert not tune_shard(fresh, config, Shard(2, 2), backbone=backbone).met
    assert refused() == (
        "shard 2/2 is not finished (0 of 2 chunks)",
        f"run: memtune tune --shard 2/2 --project {fresh}",
    )


def test_a_project_without_shards_says_how_to_make_them(fresh, refused):
    message, hint = refused()
    assert "holds no shards" in message and hint == f"memtune plan --shards N --project {fresh} says how to make them"


def test_shards_of_another_target_are_refused_with_the_command_that_fits_them_for_it(fresh, fit, refused):
    fit(1, 2)
    message, hint = refused(until_loss=0.001)
    assert message.endswith("were fitted for another --until-loss")
    assert hint == f"run: memtune tune --shard 1/2 --project {fresh} --until-loss 0.001"


def test_shards_of_another_state_are_refused(fresh, taught, fit, config, backbone):
    fit(1, 2)
    for kept in kept_shards(Project(fresh)):
        shutil.copy(kept.path, taught)
    with pytest.raises(ProjectError, match="were fitted for another state of the memory"):
        merge(taught, config, backbone=backbone)


def test_a_damaged_shard_is_missing(fresh, fit, refused):
    fit(1, 2)
    path = kept_shards(Project(fresh))[1].path
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert refused() == ("shard 2 of 2 is missing", f"run: memtune tune --shard 2/2 --project {fresh}")


def test_of_two_ways_to_cut_the_one_that_is_complete_is_taken(fresh, fit, merged):
    fit(1, of=3)
    fit(1, 2, of=2)
    assert merged().met and kept_shards(Project(fresh)) == []


def test_shards_cut_in_other_chunks_are_refused(fresh, fit, refused, monkeypatch):
    fit(1, 2)
    monkeypatch.setattr(tuning, "CHUNK", 1)
    message, hint = refused()
    assert "holds other facts than shard 1/2" in message and hint == f"run: memtune tune --shard 1/2 --project {fresh}"


def test_ctrl_c_leaves_the_shards_where_they_are(fresh, fit, merged, monkeypatch):
    fit(1, 2)

    def interrupt(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Asker, "ask", interrupt)
        with pytest.raises(KeyboardInterrupt):
            merged()
    assert len(kept_shards(Project(fresh))) == 2 and not load_memory(Project(fresh)).bank.accepted.any()
    assert merged().met
