"""On Ray: the memory of one process; a worker that is killed is replaced, and goes on with what was kept."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
from tiny import FACTS

from memtune import tune as tuning
from memtune import tune_ray as on_ray
from memtune.config import Config
from memtune.errors import ConfigError, ProjectError
from memtune.events import Learned, Note, Progress
from memtune.project import Project
from memtune.shards import Shard
from memtune.tune import tune
from memtune.tune_ray import tune_ray
from memtune.tune_shard import tune_shard


def small_chunks(setattr=setattr):
    for name, value in (("CHUNK", 2), ("REPORT_EVERY", 0.0), ("SAVE_EVERY", 0.0), ("SHARE", float("inf"))):
        setattr(tuning, name, value)


def fit_and_be_killed(project_dir: str, config: Config, shard: Shard) -> None:
    """The task of these tests: what each attempt hears of is noted, and the first one at shard 2 is killed midway."""
    small_chunks()
    marks = Path(project_dir).with_name("marks")
    mark = marks / f"{shard.number}-{os.getpid()}"
    first = not list(marks.glob("2-*"))

    def hear(event):
        if isinstance(event, Learned):
            with mark.open("a") as file:
                file.write(f"{event.done} ")
            if first and shard.number == 2 and event.done == 4:  # one chunk of it is kept by now
                os.kill(os.getpid(), signal.SIGKILL)

    tune_shard(Path(project_dir), config, shard, on_event=hear)


@pytest.fixture(scope="module")
def ray():
    """A Ray of this machine alone. The tests' own modules must be found by its workers."""
    ray = pytest.importorskip("ray", reason="python -m pip install 'ray>=2.40'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # else it keeps a token in the home directory
        patch.setenv("RAY_worker_niceness", "0")  # 15 else: on a busy machine minutes instead of seconds
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield ray
        ray.shutdown()


@pytest.fixture
def one(ingested, tmp_path, config, backbone, monkeypatch):
    """What one process makes of the project."""
    small_chunks(monkeypatch.setattr)
    project = shutil.copytree(ingested, tmp_path / "one")
    tune(project, config, backbone=backbone)
    return project


def files_of(project):
    return {kind: record["sha256"] for kind, record in Project(project).state["files"].items()}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_killed_worker_is_replaced_and_the_memory_is_that_of_one_process(
    ray, fresh, one, config, tmp_path, monkeypatch
):
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setattr(on_ray, "fit", fit_and_be_killed)
    events = []
    result = tune_ray(fresh, config, shards=2, on_event=events.append)
    assert result.met and result.learned == result.verified_exact == len(FACTS)
    assert files_of(fresh) == files_of(one)
    attempts = [path.read_text().split() for path in sorted(marks.glob("2-*"), key=lambda path: path.stat().st_mtime)]
    assert attempts == [["2", "4"], ["2", "4"]] or attempts == [["2", "4"], ["4"]], attempts
    assert [event.done for event in events if isinstance(event, Progress) and event.stage == "shards"] == [1, 2]
    assert Note("2 shards on Ray: 1 cores and 0 GPUs each") in events


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_mistake_of_the_user_is_told_in_its_own_words(ray, fresh, config, monkeypatch):
    monkeypatch.setattr(on_ray, "fit", refuse)
    with pytest.raises(ProjectError, match=r"^no disk$") as caught:
        tune_ray(fresh, config, shards=1)
    assert caught.value.hint == "buy one"


def refuse(project_dir: str, config: Config, shard: Shard) -> None:
    raise ProjectError("no disk", hint="buy one")


def test_without_ray_it_says_how_to_install_it(fresh, config, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError) as caught:
        tune_ray(fresh, config)
    assert "pip install 'ray>=2.40'" in caught.value.hint
