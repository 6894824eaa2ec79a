"""What all commands share: options, how a conversation begins and ends, lists of what went wrong."""

from __future__ import annotations

import errno
import os
import re
import shlex
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memtune import ui
from memtune.config import CONFIG_FILE, Config, target_option
from memtune.errors import ConfigError, DataError, MemtuneError
from memtune.events import Note
from memtune.project import PROJECT_ENV, Project, in_project
from memtune.state import made_with
from memtune.visible import show

if TYPE_CHECKING:
    from memtune.teaching import FailedFact

DEBUG_ENV = "MEMTUNE_DEBUG"
# What the machine says of a path. A full disk is not among it: there the user was right.
REFUSED = {errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP, errno.ENOENT, errno.EEXIST}
REFUSED |= {errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY}

app = typer.Typer(
    rich_markup_mode=None,  # what a user typed is never read as markup, and help is the same text everywhere
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExample:\n  memtune ingest facts.jsonl && memtune tune && memtune probe 'What is part HT-4471?'",
)

ProjectOption = Annotated[
    Path, typer.Option("--project", metavar="DIR", envvar=PROJECT_ENV, help="Project directory.", show_envvar=True)
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help=f"Settings file; {CONFIG_FILE} of this directory, if there is one."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write the result to stdout as one JSON object.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]
SeedOption = Annotated[int | None, typer.Option("--seed", metavar="N", help=f"Random seed. [default: {Config.seed}]")]
UntilLossOption = Annotated[
    float | None,
    typer.Option(
        "--until-loss",
        metavar="NATS",
        help=f"Loss that every fact must reach, in nats per answer token. [default: {Config.until_loss}]",
    ),
]


def help_if_bare(context: typer.Context) -> None:
    """A call without any command is a mistake, and is shown what there is."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


@contextmanager
def conversation(as_json: bool, quiet: bool) -> Iterator[ui.Ui]:
    """Turns every way in which a command can end into its words and its exit code."""
    shown = ui.Ui(as_json=as_json, quiet=quiet)
    code = 0
    try:
        yield shown
    except MemtuneError as error:
        code = shown.error(str(error), error.hint, error.exit_code)
    except KeyboardInterrupt:
        again = shlex.join(["memtune", *sys.argv[1:]])
        code = shown.error("interrupted; the last finished state is kept", f"go on with: {again}", 130)
    except BrokenPipeError:
        code = 1
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read stdout has gone: no more words
    except OSError as error:
        code = _refused_path(shown, error) if error.errno in REFUSED else _unexpected(shown, error)
    except Exception as error:  # a fault of memtune or of the machine, which the user cannot know
        code = _unexpected(shown, error)
    finally:
        shown.close()
    if code:
        raise typer.Exit(code)


def _refused_path(shown: ui.Ui, error: OSError) -> int:
    """A name that is too long, a place where nobody may write: the user named it, or can mend it."""
    return shown.error(f"{error.filename}: {error.strerror}", "name a path that can be read and written", 2)


def _unexpected(shown: ui.Ui, error: Exception) -> int:
    message = f"{type(error).__name__}: {error}".removesuffix(": ")
    if os.environ.get(DEBUG_ENV) == "1":
        return shown.error(f"{message}\n{traceback.format_exc()}".rstrip(), "", 1)
    return shown.error(message, f"{DEBUG_ENV}=1 shows where it happened", 1)


def settings_of(shown: ui.Ui, file: Path | None, *, project: Path | None = None, **flags: Any) -> Config:
    """Flags over the settings file over the defaults. ``project``: what it was made with is its default."""
    path = file or Path(CONFIG_FILE)
    if file and not path.is_file():
        raise ConfigError(f"{path} is no file", hint="--config takes a YAML file of settings")
    if path.is_file():
        shown.on_event(Note(f"settings: {path}"))
    base = None
    if project is not None:
        base = Config.from_mapping(made_with(Project(project).state), str(project))
    return Config.load(path, base).with_flags(**flags)


def with_options(project: Path, file: Path | None, settings: Config) -> str:
    """The options that decide what the next command does, as they were given: the project, the settings, the target."""
    config = f" --config {shlex.quote(str(file))}" if file else ""
    return f"{in_project(project)}{config}{target_option(settings.until_loss)}"


def check_stdin(path: str) -> None:
    """A terminal would be waited for without a word."""
    if path == "-" and sys.stdin is not None and sys.stdin.isatty():
        raise DataError(
            ["standard input is a terminal"], hint="name a file, or pipe one in: cat facts.jsonl | memtune ..."
        )


def check_text(text: str, name: str = "the question") -> None:
    """Bytes that are no text come from the shell as lone surrogates, which no tokenizer reads and no file holds."""
    if found := re.search("[\ud800-\udfff]", text):
        problem = f"{name} holds U+{ord(found.group()):04X}, which is no text: {show(text)}"
        raise DataError([problem], hint="write it in UTF-8")


def failed_list(failed: Sequence[FailedFact], facts: int) -> str:
    lines = (f"{fact.source}: {show(fact.question)}: {fact.reason}" for fact in failed)
    return f"{len(failed):,} of {facts:,} facts were not learned:\n{listed(lines)}"


def listed(lines: Iterable[str]) -> str:
    """The first lines, and how many more there are."""
    every = list(lines)
    more = len(every) - ui.LIST_CAP
    return "\n".join([*every[: ui.LIST_CAP], *([f"and {more:,} more"] if more > 0 else [])])
