"""The command line: every command reads its options, calls one function of the library, and shows what it returned.

Exit codes: 0 done and target met, 1 unexpected failure, 2 usage, configuration or data (nothing was changed),
3 the target was not met, 130 interrupted. The only module that knows Typer.
"""

from __future__ import annotations

import os
import shlex
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memtune import __version__, ui
from memtune.config import CONFIG_FILE, Config
from memtune.errors import ConfigError, DataError, MemtuneError, TargetNotMet
from memtune.events import Note
from memtune.located import show

if TYPE_CHECKING:
    from memtune.teaching import FailedFact
    from memtune.tune import TuneResult

__all__ = ["app", "main"]

PROJECT_ENV = "MEMTUNE_PROJECT"
DEBUG_ENV = "MEMTUNE_DEBUG"
PROJECT = Path(".memtune")

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
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


@app.command(
    epilog="\b\nExamples:\n  memtune ingest facts.jsonl\n  memtune ingest facts.csv --question-key Frage "
    "--answer-key Antwort\n  cat facts.jsonl | memtune ingest - --model ./my-checkpoint"
)
def ingest(
    facts: Annotated[
        str, typer.Argument(metavar="FACTS", help="JSONL, JSON, CSV, TSV or YAML file of facts; - is standard input.")
    ],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help=f"Checkpoint directory, hub id, GGUF file or built-in name. [default: {Config.model}]",
        ),
    ] = None,
    false_fire: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help=f"Near-miss questions that may fire. [default: {Config.false_fire}]"),
    ] = None,
    rows: Annotated[
        str | None, typer.Option(metavar="int8|float32", help=f"How fitted rows are kept. [default: {Config.rows}]")
    ] = None,
    question_key: Annotated[str | None, typer.Option(metavar="KEY", help="Name of the question's column.")] = None,
    answer_key: Annotated[str | None, typer.Option(metavar="KEY", help="Name of the answer's column.")] = None,
    seed: SeedOption = None,
    device: Annotated[
        str | None, typer.Option(metavar="DEVICE", help=f"cpu, cuda, cuda:1 ... [default: {Config.device}]")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(metavar="DTYPE", help=f"float32, bfloat16 or float16. [default: {Config.dtype}]")
    ] = None,
    project: ProjectOption = PROJECT,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Read and check a file of facts and build its router.

    Facts that were tuned before and did not change stay tuned.
    """
    with _conversation(as_json, quiet) as shown:
        machine = {"device": device, "dtype": dtype}
        settings = _settings(shown, config, model=model, false_fire=false_fire, seed=seed, rows=rows, **machine)
        _check_stdin(facts)
        from memtune.ingest import ingest as run

        result = run(
            facts, project, settings, question_key=question_key, answer_key=answer_key, on_event=shown.on_event
        )
        shown.show(result, ui.ingest_view, f"memtune tune{_in(project)}")


UntilLossOption = Annotated[
    float | None,
    typer.Option(
        "--until-loss",
        metavar="NATS",
        help=f"Loss that every fact must reach, in nats per answer token. [default: {Config.until_loss}]",
    ),
]
VerifyOption = Annotated[
    str | None,
    typer.Option(
        "--verify", metavar="sample|all|none", help=f"Facts to confirm by generation. [default: {Config.verify}]"
    ),
]


@app.command(
    epilog="\b\nExamples:\n  memtune tune\n  memtune tune --until-loss 0.001 --verify all\n  memtune tune --shard 3/8\n"
    "  memtune tune --engine ray --shards 8"
)
def tune(
    until_loss: UntilLossOption = None,
    verify: VerifyOption = None,
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
    with _conversation(as_json, quiet) as shown:
        settings = _settings(shown, config, until_loss=until_loss, verify=verify, seed=seed)
        if shard is not None:
            _check_local("--shard", engine, address, shards)
            _tune_shard(shown, project, settings, shard)
        else:
            run = _engine(engine, address, shards)
            _show_tuned(shown, run(project, settings, on_event=shown.on_event), project)


def _tune_shard(shown: ui.Ui, project: Path, settings: Config, shard: str) -> None:
    from memtune.shards import Shard
    from memtune.tune_shard import tune_shard as run

    result = run(project, settings, Shard.parse(shard), on_event=shown.on_event)
    shown.show(result, ui.shard_view, *([f"memtune merge{_in(project)}"] if result.met else []))
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


def _show_tuned(shown: ui.Ui, result: TuneResult, project: Path) -> None:
    commands = [f'memtune probe "QUESTION"{_in(project)}', f"memtune export OUT{_in(project)}"]
    shown.show(result, ui.tune_view, *(commands if result.met else []))
    if result.interrupted:
        raise KeyboardInterrupt
    if not result.met:
        raise TargetNotMet(_failed(result.failed, result.facts), hint="reword these, then run ingest and tune again")


@app.command(epilog="\b\nExamples:\n  memtune plan --shards 8\n  memtune plan --shards 8 --json")
def plan(
    shards: Annotated[int, typer.Option(metavar="N", min=1, help="Parts to cut the facts into.")] = 1,
    until_loss: UntilLossOption = None,
    project: ProjectOption = PROJECT,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Say what each shard would take, and its commands.

    Up to 128 facts are fitted to time it; nothing is written.
    """
    with _conversation(as_json, quiet) as shown:
        settings = _settings(shown, config, until_loss=until_loss)
        from memtune.plan import plan as run

        result = run(project, settings, shards=shards, on_event=shown.on_event)
        commands = [f"memtune tune --shard {planned.shard}{_in(project)}" for planned in result.shards]
        if len(commands) > ui.LIST_CAP:
            commands = [f"memtune tune --shard I/{shards}{_in(project)}    for I from 1 to {shards}"]
        shown.show(result, ui.plan_view, *commands, f"memtune merge{_in(project)}")


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
    with _conversation(as_json, quiet) as shown:
        settings = _settings(shown, config, until_loss=until_loss, verify=verify, seed=seed)
        from memtune.merge import merge as run

        _show_tuned(shown, run(project, settings, on_event=shown.on_event), project)


@app.command(
    epilog='\b\nExamples:\n  memtune probe "What is part HT-4471?"\n  memtune probe --file questions.jsonl --json'
)
def probe(
    question: Annotated[str | None, typer.Argument(metavar="QUESTION", help="One question.")] = None,
    file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Ask every question of a file; .txt is one a line, - is standard input."),
    ] = None,
    project: ProjectOption = PROJECT,
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object a question to stdout.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Write the answers, and say nothing but errors.")
    ] = False,
) -> None:
    """Ask the tuned model and see which fact fired.

    The answer goes to stdout; which fact fired, how surely, and the backbone's own answer go to stderr.
    """
    with _conversation(as_json, quiet) as shown:
        _settings(shown, config)
        questions = _questions(question, file)
        from memtune.probe import probe as run

        for result in run(questions, project, on_event=shown.on_event):
            shown.answer(result)


@app.command(
    "eval",
    epilog="\b\nExamples:\n  memtune eval --paraphrases paraphrases.jsonl --near-miss near_miss.jsonl\n"
    "  memtune eval --paraphrases paraphrases.jsonl --min-recall 0.99 --min-near-miss 0.99 --json",
)
def evaluate(
    paraphrases: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Other wordings, each with the id or the answer of its fact."),
    ] = None,
    near_miss: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Questions close to the facts that no fact answers.")
    ] = None,
    unrelated: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Questions about something else; .txt is one a line.")
    ] = None,
    sample: Annotated[int, typer.Option(metavar="N", help="Questions of each measure at most; 0 asks all.")] = 300,
    longest: Annotated[
        int, typer.Option(metavar="TOKENS", help="Length to which an output that should be unchanged is compared.")
    ] = 32,
    verify: Annotated[
        str | None,
        typer.Option(
            metavar="sample|all|none",
            help=f"Outputs to compare where nothing fires: 64 a measure, all or none. [default: {Config.verify}]",
        ),
    ] = None,
    min_recall: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", help="Floor for the given paraphrases, or for the tuned wordings without a file."
        ),
    ] = None,
    min_exact: Annotated[float | None, typer.Option(metavar="SHARE", help="Floor for the tuned wordings.")] = None,
    min_near_miss: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Floor for unchanged near misses: the given ones, or else synthetic ones."),
    ] = None,
    min_unrelated: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", help="Floor for unchanged unrelated questions: given ones, or else memtune's own."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where eval.json and eval.html go. [default: the project directory]"),
    ] = None,
    seed: SeedOption = None,
    project: ProjectOption = PROJECT,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure recall, near misses and robustness, and write a page.

    Every figure is a count of whole outputs of the tuned model. A floor that is missed ends with exit code 3.
    """
    with _conversation(as_json, quiet) as shown:
        settings = _settings(shown, config, verify=verify, seed=seed)
        from memtune.evaluate import Floors, QuestionFiles, Scope
        from memtune.evaluate import evaluate as run

        result = run(
            project,
            settings,
            files=QuestionFiles(paraphrases, near_miss, unrelated),
            floors=Floors(min_recall, min_exact, min_near_miss, min_unrelated),
            scope=Scope(sample, longest),
            out=out,
            on_event=shown.on_event,
        )
        shown.show(result, ui.eval_view)
        missed = [f"{floor}" for floor in result.floors if not floor.met]
        if missed:
            raise TargetNotMet(_missed(missed), hint=f"every failure is listed in {result.page}")


@app.command(epilog="\b\nExamples:\n  memtune export my-model\n  memtune export my-adapter --format adapter")
def export(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New directory to write.")],
    format: Annotated[
        str,
        typer.Option(
            metavar="FORMAT",
            help="bundle: backbone and memory, for transformers alone. adapter: the memory, for peft with memtune.",
        ),
    ] = "bundle",
    link: Annotated[bool, typer.Option("--link", help="Link to the backbone's files instead of copying them.")] = False,
    project: ProjectOption = PROJECT,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write a checkpoint that loads without memtune, or a PEFT adapter.

    What is written is asked its facts again in a fresh process, a bundle in one that has transformers alone, before it
    takes its place.
    """
    with _conversation(as_json, quiet) as shown:
        _settings(shown, config)
        from memtune.export import export as run

        result = run(project, out, format=format, link=link, on_event=shown.on_event)
        load = f"AutoModelForCausalLM.from_pretrained({str(out)!r}, trust_remote_code=True)"
        if format == "adapter":
            load = f"import memtune.peft; PeftModel.from_pretrained(base, {str(out)!r})"
        shown.show(result, ui.export_view, *([load] if result.met else []))
        if not result.met:
            lost = f"{len(result.lost):,} of {result.asked:,} facts are not answered exactly by the {format}"
            raise TargetNotMet(f"{lost}:\n{_listed(result.lost)}", hint=f"memtune tune --verify all{_in(project)}")


@contextmanager
def _conversation(as_json: bool, quiet: bool) -> Iterator[ui.Ui]:
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
    except Exception as error:  # a fault of memtune or of the machine, which the user cannot know
        code = _unexpected(shown, error)
    finally:
        shown.close()
    if code:
        raise typer.Exit(code)


def _unexpected(shown: ui.Ui, error: Exception) -> int:
    message = f"{type(error).__name__}: {error}".removesuffix(": ")
    if os.environ.get(DEBUG_ENV) == "1":
        return shown.error(f"{message}\n{traceback.format_exc()}".rstrip(), "", 1)
    return shown.error(message, f"{DEBUG_ENV}=1 shows where it happened", 1)


def _settings(shown: ui.Ui, file: Path | None, **flags: Any) -> Config:
    """Flags over the settings file over the defaults."""
    path = file or Path(CONFIG_FILE)
    if file and not path.is_file():
        raise ConfigError(f"{path} is no file", hint="--config takes a YAML file of settings")
    if path.is_file():
        shown.on_event(Note(f"settings: {path}"))
    return Config.load(path).with_flags(**flags)


def _questions(question: str | None, file: str | None) -> Sequence[str]:
    if (question is None) == (file is None):
        raise MemtuneError("probe takes either one question or --file FILE", hint="memtune probe --help")
    if file is None:
        return [str(question)]
    _check_stdin(file)
    from memtune.facts import read_questions

    return read_questions(file)


def _check_stdin(path: str) -> None:
    """A terminal would be waited for without a word."""
    if path == "-" and sys.stdin is not None and sys.stdin.isatty():
        raise DataError(
            ["standard input is a terminal"], hint="name a file, or pipe one in: cat facts.jsonl | memtune ..."
        )


def _in(project: Path) -> str:
    """The option that names the project again, where it is needed."""
    known = project == Path(os.environ.get(PROJECT_ENV) or PROJECT)
    return "" if known else f" --project {shlex.quote(str(project))}"


def _failed(failed: Sequence[FailedFact], facts: int) -> str:
    lines = (f"{fact.source}: {show(fact.question)}: {fact.reason}" for fact in failed)
    return f"{len(failed):,} of {facts:,} facts were not learned:\n{_listed(lines)}"


def _missed(missed: Sequence[str]) -> str:
    return f"{len(missed)} floor{'s were' if len(missed) > 1 else ' was'} missed:\n{_listed(missed)}"


def _listed(lines: Iterable[str]) -> str:
    """The first lines, and how many more there are."""
    every = list(lines)
    more = len(every) - ui.LIST_CAP
    return "\n".join([*every[: ui.LIST_CAP], *([f"and {more:,} more"] if more > 0 else [])])
