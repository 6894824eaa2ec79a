"""A shard fits its part alone, keeps it beside the project, goes on where it was stopped, and is done once."""

from __future__ import annotations

import signal

import pytest
import torch
from safetensors.torch import load_file
from tiny import FACTS

from memtune import tune as tuning
from memtune.change import forget
from memtune.errors import ProjectError
from memtune.events import Learned, Note
from memtune.merge import merge
from memtune.project import Project
from memtune.shards import Shard, kept_shards
from memtune.store import load_memory
from memtune.tune_shard import tune_shard


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    for name, value in (("CHUNK", 2), ("REPORT_EVERY", 0.0), ("SAVE_EVERY", 0.0), ("SHARE", float("inf"))):
        monkeypatch.setattr(tuning, name, value)


@pytest.fixture
def fit(fresh, config, backbone):
    def run(number, of=2, on_event=lambda event: None, **changes):
        return tune_shard(fresh, config.with_flags(**changes), Shard(of, number), backbone=backbone, on_event=on_event)

    return run


def test_a_shard_learns_its_part_and_leaves_the_project_alone(fresh, fit):
    before = (fresh / "project.json").read_bytes()
    result = fit(2)
    assert result.met and (result.shard, result.facts, result.learned) == ("2/2", 4, 4)
    assert (fresh / "project.json").read_bytes() == before
    assert not load_memory(Project(fresh)).bank.accepted.any()
    [kept] = kept_shards(Project(fresh))
    assert str(kept.path) == result.file and kept.origin.bank == Project(fresh).state["files"]["bank"]["sha256"]


def test_a_finished_shard_says_so_and_does_nothing(fresh, config, fit):
    first = fit(1)
    before = {path.name: path.read_bytes() for path in fresh.iterdir()}
    events = []
    again = tune_shard(fresh, config.with_flags(), Shard(2, 1), on_event=events.append)  # and loads no model
    assert again == first and events == [Note("shard 1/2 is finished already")]
    assert {path.name: path.read_bytes() for path in fresh.iterdir()} == before


def test_a_shard_without_facts_is_finished_too(fit):
    results = [fit(number, of=5) for number in range(1, 6)]
    assert all(result.met for result in results)
    assert sorted(result.facts for result in results) == [0, 0, 2, 2, 2]


def test_progress_is_told_of_its_own_facts(fit):
    events = []
    fit(2, on_event=events.append)
    assert [(event.done, event.total) for event in events if isinstance(event, Learned)] == [(2, 4), (4, 4)]


def test_ctrl_c_keeps_whole_chunks_and_the_rest_is_fitted_later(fit):
    def interrupt(event):
        if isinstance(event, Learned):
            raise KeyboardInterrupt

    stopped = fit(2, on_event=interrupt)
    assert not stopped.met and stopped.learned == 2
    events = []
    whole = fit(2, on_event=events.append)
    assert whole.met and whole.learned == 4 and whole.seconds > stopped.seconds
    assert [event.done for event in events if isinstance(event, Learned)] == [2, 4]


def test_a_shard_of_a_project_that_was_changed_meanwhile_ends_and_leaves_nothing(done, config, backbone):
    """It would hold the rows of a fact that was forgotten while it ran."""

    def change(event):
        if isinstance(event, Learned) and "valve" in load_memory(Project(done)).bank.numbers_of(["valve"]):
            forget(["valve"], done, config, backbone=backbone)

    stricter = config.with_flags(until_loss=1e-9)
    with pytest.raises(ProjectError, match="changed by another command meanwhile"):
        tune_shard(done, stricter, Shard(1, 1), backbone=backbone, on_event=change)
    assert not list(done.glob("shard_*"))


def test_another_target_is_fitted_anew(fresh, fit):
    fit(1)
    assert fit(1, until_loss=0.001).learned == 2
    assert len(kept_shards(Project(fresh))) == 1


def test_a_project_without_facts_says_how_to_begin(tmp_path, config):
    with pytest.raises(ProjectError) as caught:
        tune_shard(tmp_path / "nowhere", config, Shard(2, 1))
    assert caught.value.hint.startswith("run first: memtune ingest FACTS")


KILLED = """
    import os, signal, sys
    from pathlib import Path
    import torch
    from memtune import tune as tuning
    from memtune.config import Config
    from memtune.events import Learned
    from memtune.shards import Shard
    from memtune.tune_shard import tune_shard

    torch.set_num_threads(1)
    tuning.CHUNK, tuning.SAVE_EVERY, tuning.REPORT_EVERY, tuning.SHARE = 2, 0.0, 0.0, float("inf")

    def kill(event):
        if isinstance(event, Learned) and event.done == 4:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        tune_shard(Path(sys.argv[1]), Config(model=sys.argv[2]), Shard(1, 1), on_event=kill)
        os._exit(0)
    print(os.WTERMSIG(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL and fork")
def test_a_killed_shard_goes_on_with_the_chunks_it_had_kept(fresh, config, fit, backbone, run_python, monkeypatch):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    assert int(run_python(KILLED, fresh, config.model)) == signal.SIGKILL
    [kept] = kept_shards(Project(fresh))
    assert (kept.done, kept.chunks) == (1, 3)
    before = load_file(kept.path)["values"]
    events = []
    assert fit(1, of=1, on_event=events.append).met
    assert [event.done for event in events if isinstance(event, Learned)] == [2, 4, 6]
    assert merge(fresh, config, backbone=backbone).learned == len(FACTS)
    bank = load_memory(Project(fresh)).bank
    done = bank.offsets[2]
    assert torch.equal(bank.values[:done], before[:done])
