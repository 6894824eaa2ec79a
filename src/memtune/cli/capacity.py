"""The tests of what a memory can hold and what it leaves alone: capacity."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    check_stdin,
    conversation,
    listed,
    settings_of,
)
from memtune.errors import ConfigError, TargetNotMet
from memtune.project import PROJECT

if TYPE_CHECKING:
    from memtune.evidence.storage.capacity import Control

MOST = 256


@app.command(
    epilog="\b\nExamples:\n  memtune capacity facts.jsonl\n  memtune capacity --sweep --most 1000\n"
    "  memtune capacity facts.jsonl --count 8 --control lora"
)
def capacity(
    facts: Annotated[
        str | None,
        typer.Argument(
            metavar="FACTS",
            help="File of facts whose questions are asked. [default: the project's, or else synthetic ones]",
        ),
    ] = None,
    count: Annotated[int, typer.Option(metavar="N", help="Questions to learn; some of the others are held out.")] = 32,
    sample: Annotated[
        int, typer.Option(metavar="N", help="Questions of each kind at most to ask beside those that are learned.")
    ] = 40,
    control: Annotated[
        str | None,
        typer.Option(metavar="lora", help="What learns the same beside the memory. It takes minutes, or hours."),
    ] = None,
    rank: Annotated[
        int | None, typer.Option(metavar="R", help="Its rank. [default: as many bytes as the memory]")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(metavar="RATE", help="Its learning rate, of AdamW. [default: 5e-4]")
    ] = None,
    epochs: Annotated[int | None, typer.Option(metavar="N", help="Its epochs at most. [default: 100]")] = None,
    seconds: Annotated[
        float | None,
        typer.Option(metavar="S", help="Its processor seconds at most, for each set of answers. [default: 600]"),
    ] = None,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Learn twice as many random answers each time, until recall breaks.")
    ] = False,
    most: Annotated[
        int | None, typer.Option(metavar="N", help=f"Questions of the sweep at most. [default: {MOST}]")
    ] = None,
    max_drop: Annotated[
        float,
        typer.Option(metavar="SHARE", help="Control answers that may change, and accuracy that may be lost."),
    ] = 0.0,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where capacity.html, capacity.json and the plots go.")
    ] = Path("capacity"),
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Checkpoint, as for ingest; without FACTS it is asked synthetic questions."),
    ] = None,
    until_loss: UntilLossOption = None,
    seed: SeedOption = None,
    project: ProjectOption = PROJECT,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Test what a memory can hold, and that it leaves the rest alone.

    The same questions are learned with random answers and with their own; then everything else is asked again, with the
    memory on and off. No project is changed. Exit code 3 if anything was not learned, or anything else changed.
    """
    with conversation(as_json, quiet) as shown:
        settings = settings_of(shown, config, model=model, until_loss=until_loss, seed=seed)
        if facts is not None:
            check_stdin(facts)
        if most is not None and not sweep:
            raise ConfigError("--most goes with --sweep", hint="memtune capacity --sweep --most 1000")
        rival = _control(control, rank=rank, rate=rate, epochs=epochs, seconds=seconds)
        from memtune.evidence.storage.capacity import Scope
        from memtune.evidence.storage.capacity import capacity as run

        result = run(
            facts,
            None if model else project,
            settings,
            scope=Scope(facts=count, sample=sample, most=(most or MOST) if sweep else None, max_drop=max_drop),
            control=rival,
            out=out,
            on_event=shown.on_event,
        )
        shown.show(result, ui.capacity_view)
        if not result.met:
            raise TargetNotMet(f"not as it has to be:\n{listed(result.missed)}", hint=f"all of it is in {result.page}")


def _control(name: str | None, **settings: float | None) -> Control | None:
    """How the control learns, if there is one."""
    given = {option: value for option, value in settings.items() if value is not None}
    if name not in (None, "lora"):
        raise ConfigError(f"--control is {name!r}", hint="--control takes: lora")
    if name is None and given:
        raise ConfigError(f"--{next(iter(given))} is a setting of the control", hint="add: --control lora")
    if name is None:
        return None
    from memtune.evidence.storage.capacity import Control

    return Control(**given)  # type: ignore[arg-type]
