"""Single facts of a tuned project, their history, and the proof of what is in: facts ..., audit."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from memtune import ui
from memtune.cli.shared import (
    ConfigOption,
    JsonOption,
    ProjectOption,
    QuietOption,
    app,
    check_stdin,
    check_text,
    conversation,
    failed_list,
    help_if_bare,
    listed,
    settings_of,
    with_options,
)
from memtune.errors import MemtuneError, TargetNotMet
from memtune.project import PROJECT, in_project

if TYPE_CHECKING:
    from memtune.audit import AuditResult
    from memtune.change import ChangeResult
    from memtune.fact import Fact

facts_app = typer.Typer(
    rich_markup_mode=None,
    epilog="\b\nExamples:\n  memtune facts list\n  memtune facts add --question 'Who runs the quay?' "
    "--answer 'Ann Brock.'\n  memtune facts update --id quay --answer 'Ben Ode.'\n  memtune facts forget quay",
)
app.add_typer(facts_app, name="facts", help="List, add, change and forget single facts; bring earlier states back.")

MomentArgument = Annotated[
    str, typer.Argument(metavar="TIME", help="A time, or the number of a change: memtune facts log.")
]
FactsArgument = Annotated[
    str | None, typer.Argument(metavar="FACTS", help="File of facts, as for ingest; - is standard input.")
]
QuestionOption = Annotated[str | None, typer.Option(metavar="TEXT", help="The question, instead of a file.")]
AnswerOption = Annotated[str | None, typer.Option(metavar="TEXT", help="Its exact answer.")]
ReplaceOption = Annotated[
    bool,
    typer.Option(
        "--replace", help="Remove the stored facts that would be taken for the new one; rollback brings them back."
    ),
]
KeepOption = Annotated[
    bool, typer.Option("--keep-both", help="Let facts stand side by side that may be taken for one another.")
]
TO_ADD = "either FACTS, or --question and --answer"
TO_UPDATE = "either FACTS, or --id with --question or --answer"


@facts_app.callback(invoke_without_command=True)
def bare(context: typer.Context) -> None:
    help_if_bare(context)


@facts_app.command("list", epilog="\b\nExample:\n  memtune facts list --json")
def list_facts(project: ProjectOption = PROJECT, as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Every fact with its id, and whether it is learned."""
    with conversation(as_json, quiet) as shown:
        from memtune.listing import list_facts as run

        result = run(project)
        shown.listed(result, ui.listing_lines(result))


@facts_app.command(epilog="\b\nExample:\n  memtune facts show curlew3-warranty")
def show(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of facts.")],
    project: ProjectOption = PROJECT,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """All that is known of some facts: wordings, answer, source, loss."""
    with conversation(as_json, quiet) as shown:
        check_ids(ids)
        from memtune.listing import list_facts as run

        shown.show(run(project, ids=ids), ui.facts_view)


@facts_app.command(epilog="\b\nExamples:\n  memtune facts at 2026-11-25T18:30\n  memtune facts at 3 --json")
def at(
    moment: MomentArgument,
    project: ProjectOption = PROJECT,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """The facts as they were at some time."""
    with conversation(as_json, quiet) as shown:
        from memtune.listing import facts_at as run

        result = run(project, moment)
        shown.listed(result, ui.listing_lines(result))


@facts_app.command(epilog="\b\nExample:\n  memtune facts log")
def log(project: ProjectOption = PROJECT, as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Every change: when, what, from which file."""
    with conversation(as_json, quiet) as shown:
        from memtune.listing import history as run

        result = run(project)
        shown.listed(result, ui.history_lines(result))


@facts_app.command(epilog="\b\nExample:\n  memtune facts export > facts.jsonl")
def export(project: ProjectOption = PROJECT, quiet: QuietOption = False) -> None:
    """The facts as JSONL on stdout, as ingest reads them."""
    with conversation(False, quiet):
        from memtune.listing import jsonl as run

        for line in run(project):
            typer.echo(line)


@facts_app.command(
    epilog="\b\nExamples:\n  memtune facts add more.jsonl\n"
    "  memtune facts add --id quay --question 'Who runs the quay?' --answer 'Ann Brock.'"
)
def add(
    facts: FactsArgument = None,
    id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="Its id. [default: made from the question]")
    ] = None,
    question: QuestionOption = None,
    answer: AnswerOption = None,
    replace: ReplaceOption = False,
    keep_both: KeepOption = False,
    project: ProjectOption = PROJECT,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Learn more facts, and nothing else.

    Only their rows are written. A fact that a stored one would be taken for is named, and nothing changes.
    """
    with conversation(as_json, quiet) as shown:
        settings = settings_of(shown, config)
        new = _given(facts, id, question, answer, f"memtune facts add{in_project(project)}")
        from memtune.change import add as run

        ruled = partial(run, replace=replace, keep_both=keep_both, on_event=shown.on_event)
        result = ruled(new, project, settings, file=facts or "")
        _tell(shown, result, project, with_options(project, config, settings))


@facts_app.command(
    epilog="\b\nExamples:\n  memtune facts update changed.jsonl\n  memtune facts update --id quay --answer 'Ben Ode.'"
)
def update(
    facts: FactsArgument = None,
    id: Annotated[str | None, typer.Option("--id", metavar="ID", help="The fact that changes.")] = None,
    question: QuestionOption = None,
    answer: AnswerOption = None,
    replace: ReplaceOption = False,
    keep_both: KeepOption = False,
    project: ProjectOption = PROJECT,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Change what some facts say, by their ids, and nothing else."""
    with conversation(as_json, quiet) as shown:
        settings = settings_of(shown, config)
        command = f"memtune facts update{in_project(project)}"
        new: Sequence[Fact]
        if facts:
            new = _of_file(facts, (id, question, answer), command, TO_UPDATE)
        else:
            new = [_changed(project, id, question, answer)]
        from memtune.change import update as run

        ruled = partial(run, replace=replace, keep_both=keep_both, on_event=shown.on_event)
        result = ruled(new, project, settings, file=facts or "")
        _tell(shown, result, project, with_options(project, config, settings))


@facts_app.command(epilog="\b\nExample:\n  memtune facts forget curlew3-warranty")
def forget(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of facts.")],
    project: ProjectOption = PROJECT,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Remove facts from every file of the project, for good.

    No rollback brings them back. Reports of eval in the project's directory go too; exports are marked as stale.
    """
    with conversation(as_json, quiet) as shown:
        settings = settings_of(shown, config)
        check_ids(ids)
        from memtune.change import forget as run

        result = run(ids, project, settings, on_event=shown.on_event)
        _tell(shown, result, project, with_options(project, config, settings))


@facts_app.command(epilog="\b\nExamples:\n  memtune facts rollback 3\n  memtune facts rollback 2026-11-25T18:30")
def rollback(
    moment: MomentArgument,
    project: ProjectOption = PROJECT,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Bring the facts back that there were at some time. This is a change of its own, and can be undone too."""
    with conversation(as_json, quiet) as shown:
        settings = settings_of(shown, config)
        from memtune.change import rollback as run

        result = run(moment, project, settings, on_event=shown.on_event)
        _tell(shown, result, project, with_options(project, config, settings))


@app.command(
    epilog="\b\nExamples:\n  memtune audit --json > audit.json\n  memtune audit --since audit.json\n"
    "  memtune audit --absent 'HT-4471'"
)
def audit(
    since: Annotated[
        Path | None, typer.Option(metavar="FILE", help="An earlier audit, as --json writes it, to compare with.")
    ] = None,
    absent: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="A text that no file of the project or an export may hold; may be repeated."),
    ] = None,
    project: ProjectOption = PROJECT,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Prove which facts are in, and that what should be gone is gone.

    Every file is compared with its checksum and the history's chain is followed. Exit code 3 if anything is not as it
    should be.
    """
    with conversation(as_json, quiet) as shown:
        for text in absent or ():
            check_text(text, "--absent")
        from memtune.audit import audit as run

        result = run(project, since=since, absent=absent or ())
        shown.show(result, ui.audit_view)
        if not result.met:
            broken = f"entry {result.broken} of the history does not follow from the one above it"
            wrong = [*([] if result.broken is None else [broken]), *_left(result)]
            raise TargetNotMet(
                f"not everything is as it should be:\n{listed(wrong)}", hint="\n".join(_mended(result, project))
            )


def _left(result: AuditResult) -> list[str]:
    """FILE: TEXT and FILE: ID of all that should be gone."""
    return [*result.found, *(result.since.left_behind if result.since else ())]


def _mended(result: AuditResult, project: Path) -> Iterator[str]:
    """What to do about each cause."""
    from memtune.exported import exports_again
    from memtune.project import Project

    if result.broken is not None:
        yield "the history was altered after it was written: restore the project from a backup"
    directories = [export.directory for export in result.exports]
    places = {next((one for one in directories if line.startswith(f"{one}{os.sep}")), "") for line in _left(result)}
    if "" in places:  # in the project itself
        where = in_project(project)
        yield f"take a fact out for good: memtune facts forget ID{where}"
        yield f"one that is in the history alone comes back first: memtune facts rollback NUMBER{where}"
    yield from exports_again(Project(project), places)


def check_ids(ids: Sequence[str]) -> None:
    for id in ids:
        check_text(id, "the id")


def _given(file: str | None, id: str | None, question: str | None, answer: str | None, command: str) -> Sequence[Fact]:
    """The facts of the file, or the one that the options say. ``command`` was given them."""
    if file is not None:
        return _of_file(file, (id, question, answer), command, TO_ADD)
    if not (question and answer):
        raise MemtuneError(TO_ADD, hint=f"{command} --help")
    from memtune.facts import one_fact

    return [one_fact(question, answer, id, command=command)]


def _of_file(file: str, options: Sequence[str | None], command: str, instead: str) -> Sequence[Fact]:
    """The facts of the file, which takes none of the ``options`` beside it. ``instead``: what ``command`` takes."""
    if any(option is not None for option in options):
        raise MemtuneError(instead, hint=f"{command} --help")
    from memtune.facts import read_facts

    check_stdin(file)
    return read_facts(file, command=command)


def _changed(project: Path, id: str | None, question: str | None, answer: str | None) -> Fact:
    """The fact with this id, with what the options say in place of what it says."""
    if not id or not (question or answer):
        raise MemtuneError(TO_UPDATE, hint="memtune facts update --help")
    check_ids([id])
    from memtune.facts import one_fact
    from memtune.listing import fact_of

    before = fact_of(project, id)
    now = one_fact(question or before.question, answer or before.answer, id, command="memtune facts update")
    return replace(now, paraphrases=before.paraphrases)


def _tell(shown: ui.Ui, result: ChangeResult, project: Path, options: str) -> None:
    from memtune.exported import exports_again
    from memtune.project import Project

    shown.show(result, ui.change_view, *exports_again(Project(project), result.stale))
    if result.failed:
        raise TargetNotMet(failed_list(result.failed, result.facts), hint=f"memtune tune{options}")
    if result.lost:
        raise TargetNotMet(f"{len(result.lost)} facts were forgotten and cannot come back:\n{listed(result.lost)}")
