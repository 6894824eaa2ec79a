"""The command line: every command reads its options, calls one function of the library, and shows what it returned.

Exit codes: 0 done and target met, 1 unexpected failure, 2 usage, configuration or data (nothing was changed),
3 the target was not met, 130 interrupted. The only package that knows Typer.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from typer.models import CommandInfo

from memtune import __version__, ui
from memtune.cli import capacity, detect, facts, job, know, measure, score, tuning
from memtune.cli.shared import app, help_if_bare

__all__ = ["app", "main"]

COMMANDS = (job, tuning, measure, know, capacity, score, detect, facts)  # each module adds its own to the app
# As they are listed: the main job, then what tuning takes, then the instruments.
ORDER = ("ingest", "tune", "probe", "eval", "export", "plan", "merge", "know", "capacity", "score", "detect", "audit")


def _place(command: CommandInfo) -> int:
    assert command.callback is not None
    return ORDER.index(command.name or command.callback.__name__)


app.registered_commands.sort(key=_place)


def main() -> None:
    """The entry point: usage errors look like every other error."""
    try:
        code = app(prog_name="memtune", standalone_mode=False)
    except typer.TyperException as error:
        code = _usage_error(error)
    sys.exit(code)


def _usage_error(error: typer.TyperException) -> int:
    command = getattr(getattr(error, "ctx", None), "command_path", "memtune")
    return ui.Ui(as_json="--json" in sys.argv).error(error.format_message(), f"{command} --help", 2)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"memtune {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Teach a language-model checkpoint a file of facts: exact answers, nothing else changed."""
    help_if_bare(context)
