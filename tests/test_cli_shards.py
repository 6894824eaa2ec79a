"""The command line of shards: which verb each option calls, and what comes next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from memtune.cli import app
from memtune.config import Config
from memtune.plan import PlannedShard, PlanResult
from memtune.shards import Shard
from memtune.tune import TuneResult
from memtune.tune_shard import ShardResult

FITTED = ShardResult("3/8", 40, 39, 0.01, 12.3, True, ".memtune/shard_3_of_8-0.safetensors")
TUNED = TuneResult(
    facts=72,
    learned=72,
    already=0,
    until_loss=0.01,
    loss_median=0.001,
    loss_max=0.009,
    worst_token=0.02,
    verified=16,
    verified_exact=16,
    seconds=12.3,
    interrupted=False,
    failed=(),
)
PLANNED = PlanResult(
    facts=72,
    already=3,
    shards=tuple(PlannedShard(f"{n}/2", 36, "\x1b[31m", "f-9", 600, 1 << 20, 40.0 + n) for n in (1, 2)),
    seconds=42.0,
    alone=83.0,
    timed=69,
    timed_seconds=20.5,
    load_seconds=3.2,
    bank_bytes=2 << 20,
)
RESULTS = {
    "tune.tune": TUNED,
    "tune_shard.tune_shard": FITTED,
    "tune_ray.tune_ray": TUNED,
    "plan.plan": PLANNED,
    "merge.merge": TUNED,
}


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """The verbs note how they were called, and return what stands under ``results``."""
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {"results": dict(RESULTS)}

    def stand_in(verb: str) -> Callable[..., Any]:
        def call(*args: Any, on_event: Any, **kwargs: Any) -> Any:
            found[verb] = (args, kwargs)
            return found["results"][verb]

        return call

    for verb in RESULTS:
        monkeypatch.setattr(f"memtune.{verb}", stand_in(verb))
    return found


def run(*args: str) -> Result:
    return CliRunner().invoke(app, args, prog_name="memtune")


def test_a_shard_is_fitted_alone_and_merge_comes_next(calls: dict[str, Any]) -> None:
    result = run("tune", "--shard", "3/8", "--project", "p", "--until-loss", "0.001")
    assert result.exit_code == 0 and "next:  memtune merge --project p --until-loss 0.001\n" in result.stderr
    assert calls["tune_shard.tune_shard"] == ((Path("p"), Config(until_loss=0.001), Shard(8, 3)), {})
    assert "39 of 40 facts" in result.stderr and "tune.tune" not in calls


def test_130_a_shard_that_was_interrupted_says_how_to_go_on(calls: dict[str, Any]) -> None:
    calls["results"]["tune_shard.tune_shard"] = replace(FITTED, finished=False)
    result = run("tune", "--shard", "3/8")
    assert result.exit_code == 130 and "go on with: " in result.stderr and "next:" not in result.stderr


def test_ray_takes_its_cluster_and_its_shards(calls: dict[str, Any]) -> None:
    result = run("tune", "--engine", "ray", "--address", "auto", "--shards", "8")
    assert result.exit_code == 0 and "next:  memtune probe" in result.stderr
    assert calls["tune_ray.tune_ray"] == ((Path(".memtune"), Config()), {"address": "auto", "shards": 8})


@pytest.mark.parametrize(
    "flags",
    [
        ["--engine", "slurm"],
        ["--address", "auto"],
        ["--shards", "3"],
        ["--shard", "1/2", "--engine", "ray"],
        ["--shard", "1/2", "--shards", "2"],
        ["--shard", "0/2"],
        ["--skip", "all"],
        ["--skip", "known", "--shard", "1/2"],
        ["--skip", "known", "--engine", "ray"],
    ],
)
def test_2_options_that_do_not_go_together_call_nothing(flags: list[str], calls: dict[str, Any]) -> None:
    result = run("tune", *flags)
    assert result.exit_code == 2 and flags[0] in result.stderr and "hint:" in result.stderr
    assert list(calls) == ["results"]


def test_a_plan_ends_with_the_commands_of_its_shards_and_merge() -> None:
    said = run("plan", "--shards", "2").stderr
    assert "next:  memtune tune --shard 1/2\n       memtune tune --shard 2/2\n       memtune merge\n" in said
    assert "42 s for the slowest shard, 83 s for one process" in said
    assert "\x1b" not in said and "\\x1b[31m, f-9" in said


def test_what_a_plan_was_made_for_is_what_its_commands_ask_for() -> None:
    """Shards that were fitted for one target do not merge for another."""
    Path("o p.yaml").write_text("until_loss: 0.002\n")
    options = "--project p --config 'o p.yaml' --until-loss 0.002"
    said = run("plan", "--shards", "2", "--project", "p", "--config", "o p.yaml").stderr
    assert f"memtune tune --shard 2/2 {options}\n       memtune merge {options}\n" in said
    assert f"next:  memtune tune {options}\n" in run("plan", "--project", "p", "--config", "o p.yaml").stderr


def test_a_plan_of_many_shards_is_short(calls: dict[str, Any]) -> None:
    calls["results"]["plan.plan"] = replace(PLANNED, shards=PLANNED.shards * 500)
    said = run("plan", "--shards", "1000").stderr
    assert "and 980 more" in said and "memtune tune --shard I/1000    for I from 1 to 1000" in said
    assert len(said.splitlines()) < 40


@pytest.mark.parametrize("shards", ["1", "3"])
def test_a_plan_for_facts_that_are_all_learned_has_no_commands(calls: dict[str, Any], shards: str) -> None:
    calls["results"]["plan.plan"] = replace(PLANNED, already=PLANNED.facts)
    result = run("plan", "--shards", shards)
    assert result.exit_code == 0 and "72 of them learned already" in result.stderr and "next:" not in result.stderr
