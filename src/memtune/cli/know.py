"""What a model knows of the facts before they are taught, and what teaching them did to it: know."""

from __future__ import annotations

import shlex
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
    app,
    check_stdin,
    conversation,
    listed,
    settings_of,
)
from memtune.config import Config
from memtune.errors import ConfigError, TargetNotMet
from memtune.project import PROJECT, in_project

if TYPE_CHECKING:
    from memtune.evidence.knowledge.know import FactFiles, Method, Subject

SETS, SAMPLED_SETS, SHOTS = 4, 10, 4


@app.command(
    epilog="\b\nExamples:\n  memtune know facts.jsonl\n  memtune know facts.jsonl --held-out others.jsonl "
    "--unrelated capitals.jsonl --save before.json\n  memtune know --compare before.json --control lora"
)
def know(
    facts: Annotated[
        str | None, typer.Argument(metavar="FACTS", help="File of the facts to teach, as for ingest.")
    ] = None,
    held_out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Facts of the same kind that are not taught.")
    ] = None,
    unrelated: Annotated[Path | None, typer.Option(metavar="FILE", help="Facts about something else.")] = None,
    exemplars: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Facts to show before each question. [default: those asked most alike]"),
    ] = None,
    save: Annotated[Path | None, typer.Option(metavar="FILE", help="Keep what was measured, for --compare.")] = None,
    before: Annotated[
        Path | None,
        typer.Option("--compare", metavar="FILE", help="Ask what --save kept again, and say what changed."),
    ] = None,
    control: Annotated[
        str | None, typer.Option(metavar="lora", help="With --compare: teach LoRA the same facts, and ask it too.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="The model to ask. [default: the project's, with what it has learned]"),
    ] = None,
    without_memory: Annotated[
        bool, typer.Option("--without-memory", help="Ask the project's model as if it had learned nothing.")
    ] = False,
    sampled: Annotated[
        bool, typer.Option("--sampled", help="Draw 160 answers a fact, as the paper does, instead of computing.")
    ] = False,
    sets: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help=f"Sets of exemplars. [default: {SETS}, with --sampled {SAMPLED_SETS}]"),
    ] = None,
    shots: Annotated[
        int | None, typer.Option(metavar="N", min=1, help=f"Exemplars in a set. [default: {SHOTS}]")
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(metavar="template|qa", help="Chat turns, or lines Q: and A: as the paper. [default: template]"),
    ] = None,
    seed: SeedOption = None,
    project: ProjectOption = PROJECT,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Sort facts by what the model knows of them already, and measure what teaching them changed.

    HighlyKnown, MaybeKnown, WeaklyKnown or Unknown (SliCK, arXiv 2405.05904). With --compare the exit code is 3 if any
    fact that was not taught is in another category than before.
    """
    with conversation(as_json, quiet) as shown:
        settings = settings_of(shown, config, seed=seed)
        if before is None and (facts is None or control is not None):
            raise ConfigError("know takes FACTS, or --compare FILE (and --control)", hint="memtune know --help")
        if before is not None:
            kept = {"--held-out": held_out, "--unrelated": unrelated, "--exemplars": exemplars, "--save": save}
            how = {"--sampled": sampled or None, "--sets": sets, "--shots": shots, "--format": format, "--seed": seed}
            _check_compare({**kept, **how}, control)
        from memtune.evidence.knowledge.know import FactFiles, Method, Subject

        subject = Subject(project, model, not without_memory)
        if before is not None:
            _compare(shown, before, facts, subject, settings, control is not None)
        elif facts is not None:
            check_stdin(facts)
            sets = sets or (SAMPLED_SETS if sampled else SETS)
            method = Method(sets, shots or SHOTS, format or "template", sampled, settings.seed)
            _know(shown, FactFiles(facts, held_out, unrelated, exemplars), subject, settings, method, save)


def _know(
    shown: ui.Ui, files: FactFiles, subject: Subject, settings: Config, method: Method, save: Path | None
) -> None:
    from memtune.evidence.knowledge.know import know as run

    result = run(files, subject, settings, method=method, save=save, on_event=shown.on_event)
    if not shown.as_json:
        shown.listed(result, ui.know_lines(result))
    again = [f"memtune know --compare {shlex.quote(str(save))}{in_project(subject.project)}"] if save else []
    shown.show(result, ui.know_view, *again)


def _compare(shown: ui.Ui, before: Path, facts: str | None, subject: Subject, settings: Config, control: bool) -> None:
    from memtune.evidence.knowledge.know import compare as run

    result = run(before, subject, settings, facts=facts, control=control, on_event=shown.on_event)
    if not shown.as_json:
        shown.listed(result, ui.moved_lines(result))
    shown.show(result, ui.compare_view)
    if not result.met:
        damage = result.arms[0].damage
        said = f"{len(damage):,} facts that were not taught are in another category than before"
        raise TargetNotMet(f"{said}:\n{listed(map(str, damage))}")


def _check_compare(kept: dict[str, object], control: str | None) -> None:
    """What was asked before is asked again: nothing of it can be said anew."""
    given = [option for option, value in kept.items() if value is not None]
    if given:
        raise ConfigError(
            f"{', '.join(given)} and --compare: how facts are asked is in that file", hint="memtune know --help"
        )
    if control not in (None, "lora"):
        raise ConfigError(f"--control is {control!r}", hint="--control takes: lora")
