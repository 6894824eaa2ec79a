"""Fitting the facts, in one process or in parts: tune, plan, merge."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memtune import ui
from memtune.cli.shared import (
    ConfigOption,
    JsonOption,
    ProjectOption,
    QuietOption,
    SeedOption,
    UntilLossOption,
    app,
    conversation,
    failed_list,
    settings_of,
    with_options,
)
from memtune.config import Config
from memtune.errors import ConfigError, TargetNotMet
from memtune.project import PROJECT, in_project

if TYPE_CHECKING:
    from memtune.plan import PlanResult
    from memtune.tune import TuneResult

VerifyOption = Annotated[
    str | None,
    typer.Option(
        "--verify", metavar="sample|all|none", help=f"Facts to confirm by generation. [default: {Config.verify}]"
    ),
]


@app.command(
    epilog="\b\nExamples:\n  memtune tune\n  memtune tune --until-loss 0.001 --verify all\n"
    "  memtune tune --skip known\n  memtune tune --shard 3/8\n  memtune tune --engine ray --shards 8"
)
def tune(
    until_loss: UntilLossOption = None,
    verify: VerifyOption = None,
    skip: Annotated[
        str | None, typer.Option(metavar="known", help="Leave facts that the model says exactly by itself to it.")
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Fit part I of N alone, for merge; auto: as torchrun numbers its processes."),
    ] = None,
    engine: Annotated[
        str, typer.Option(metavar="local|ray", help="Where facts are fitted: in this process, or as shards by Ray.")
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="The Ray cluster. [default: RAY_ADDRESS, or else this machine]"),
    ] = None,
    shards: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Shards for Ray. [default: one for each of its GPUs, or else cores]"),
    ] = None,
    seed: SeedOption = None,
    project: ProjectOption = PROJECT,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Fit the memory until every fact is learned.

    Facts that are learned already are left alone. Ctrl-C saves what was done; the same command goes on with it.
    """
    with conversation(as_json, quiet) as shown:
        settings = settings_of(shown, config, until_loss=until_loss, verify=verify, seed=seed)
        _check_skip(skip, shard, engine)
        if shard is not None:
            _check_local("--shard", engine, address, shards)
            _tune_shard(shown, project, settings, shard, with_options(project, config, settings))
        else:
            run = _engine(engine, address, shards)
            if skip:
                run = partial(run, skip_known=True)
            _show_tuned(shown, run(project, settings, on_event=shown.on_event), project)


def _tune_shard(shown: ui.Ui, project: Path, settings: Config, shard: str, options: str) -> None:
    from memtune.shards import Shard
    from memtune.tune_shard import tune_shard as run

    result = run(project, settings, Shard.parse(shard), on_event=shown.on_event)
    shown.show(result, ui.shard_view, *([f"memtune merge{options}"] if result.met else []))
    if not result.met:
        raise KeyboardInterrupt


def _engine(engine: str, address: str | None, shards: int | None) -> Callable[..., TuneResult]:
    """What fits the facts."""
    if engine == "ray":
        from memtune.tune_ray import tune_ray

        return partial(tune_ray, address=address, shards=shards)
    _check_local("--engine local", engine, address, shards)
    from memtune.tune import tune as run

    return run


def _check_local(option: str, engine: str, address: str | None, shards: int | None) -> None:
    if engine not in ("local", "ray"):
        raise ConfigError(f"--engine is {engine!r}", hint="--engine takes one of: local, ray")
    if engine == "ray" or address is not None or shards is not None:
        raise ConfigError(f"--engine ray, --address and --shards do not go with {option}", hint="memtune tune --help")


def _check_skip(skip: str | None, shard: str | None, engine: str) -> None:
    if skip not in (None, "known"):
        raise ConfigError(f"--skip is {skip!r}", hint="--skip takes: known")
    if skip and (shard is not None or engine != "local"):
        raise ConfigError("--skip does not go with --shard and --engine ray", hint="memtune tune --help")


def _show_tuned(shown: ui.Ui, result: TuneResult, project: Path) -> None:
    commands = [f'memtune probe "QUESTION"{in_project(project)}', f"memtune export OUT{in_project(project)}"]
    shown.show(result, ui.tune_view, *(commands if result.met else []))
    if result.interrupted:
        raise KeyboardInterrupt
    if not result.met:
        raise TargetNotMet(
            failed_list(result.failed, result.facts), hint="reword these, then run ingest and tune again"
        )


@app.command(
    epilog="\b\nExamples:\n  memtune plan --against-lora\n  memtune plan --shards 8 --json\n"
    "  memtune plan --json > plan.json; memtune tune; memtune plan --check plan.json"
)
def plan(
    shards: Annotated[int, typer.Option(metavar="N", min=1, help="Parts to cut the facts into.")] = 1,
    against_lora: Annotated[
        bool, typer.Option("--against-lora", help="Time a step of LoRA too; it takes several times the memory.")
    ] = False,
    watts: Annotated[
        float | None, typer.Option(metavar="W", min=0.0, help="What the machine draws, to say the energy.")
    ] = None,
    check: Annotated[
        Path | None, typer.Option(metavar="FILE", help="After tune: what a plan, kept as JSON, said and what happened.")
    ] = None,
    until_loss: UntilLossOption = None,
    project: ProjectOption = PROJECT,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Say what tuning would take: operations, seconds, bytes, energy.

    Up to 128 facts are fitted to time it; nothing is written. With shards, what each of them takes, and its commands.
    """
    with conversation(as_json, quiet) as shown:
        settings = settings_of(shown, config, until_loss=until_loss)
        if check is not None:
            from memtune.evidence.forecast import forecast

            shown.show(forecast(project, check), ui.forecast_view)
            return
        from memtune.plan import plan as run

        wanted: dict[str, Any] = {"shards": shards, "against_lora": against_lora, "watts": watts}
        result = run(project, settings, **wanted, on_event=shown.on_event)
        shown.show(result, ui.plan_view, *_planned(result, shards, with_options(project, config, settings)))


def _planned(result: PlanResult, shards: int, options: str) -> list[str]:
    """The commands that do what was planned: none where every fact is learned already."""
    if result.facts == result.already:
        return []
    if shards == 1:
        return [f"memtune tune{options}"]
    commands = [f"memtune tune --shard {planned.shard}{options}" for planned in result.shards]
    if len(commands) > ui.LIST_CAP:
        commands = [f"memtune tune --shard I/{shards}{options}    for I from 1 to {shards}"]
    return [*commands, f"memtune merge{options}"]


@app.command(epilog="\b\nExamples:\n  memtune merge\n  memtune merge --verify all")
def merge(
    until_loss: UntilLossOption = None,
    verify: VerifyOption = None,
    seed: SeedOption = None,
    project: ProjectOption = PROJECT,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make the memory of what all shards have fitted.

    It is the memory that tune alone would have made, byte for byte. The shards are removed.
    """
    with conversation(as_json, quiet) as shown:
        settings = settings_of(shown, config, until_loss=until_loss, verify=verify, seed=seed)
        from memtune.merge import merge as run

        _show_tuned(shown, run(project, settings, on_event=shown.on_event), project)
