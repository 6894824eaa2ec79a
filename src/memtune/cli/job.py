"""The main job, but for tune: ingest, probe, export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from memtune import ui
from memtune.cli.explain import AnswerOption, Explaining, ExplainOption, HtmlOption, StrideOption, TraceOption
from memtune.cli.guard import GuardOption, guarded
from memtune.cli.shared import (
    ConfigOption,
    JsonOption,
    ProjectOption,
    QuietOption,
    SeedOption,
    app,
    check_stdin,
    check_text,
    conversation,
    listed,
    settings_of,
    with_options,
)
from memtune.config import Config
from memtune.errors import MemtuneError, TargetNotMet
from memtune.project import PROJECT


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
            help=f"Checkpoint directory, hub id, GGUF file or built-in name. [default: as before, or {Config.model}]",
        ),
    ] = None,
    false_fire: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", help=f"Near-miss questions that may fire. [default: as before, or {Config.false_fire}]"
        ),
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(metavar="int8|float32", help=f"How fitted rows are kept. [default: as before, or {Config.rows}]"),
    ] = None,
    question_key: Annotated[str | None, typer.Option(metavar="KEY", help="Name of the question's column.")] = None,
    answer_key: Annotated[str | None, typer.Option(metavar="KEY", help="Name of the answer's column.")] = None,
    seed: SeedOption = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="DEVICE", help=f"cpu, cuda, cuda:1 ... [default: as before, or {Config.device}]"),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(metavar="DTYPE", help=f"float32, bfloat16 or float16. [default: as before, or {Config.dtype}]"),
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Make the router anew, however little has changed.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say which facts are new, changed and gone, and do nothing.")
    ] = False,
    project: ProjectOption = PROJECT,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Read and check a file of facts and build its router.

    Over a project that holds facts already it does the difference: what was tuned before and did not change stays
    tuned, and where little changed the router stays too. Model and settings are as before where they are not given.
    """
    with conversation(as_json, quiet) as shown:
        machine = {"device": device, "dtype": dtype}
        flags = {"model": model, "false_fire": false_fire, "seed": seed, "rows": rows, **machine}
        settings = settings_of(shown, config, project=project, **flags)
        check_stdin(facts)
        from memtune.ingest import ingest as run
        from memtune.ingest import preview

        if dry_run:
            found = preview(facts, project, settings, rebuild, question_key=question_key, answer_key=answer_key)
            shown.show(found, ui.preview_view)
            return
        result = run(
            facts,
            project,
            settings,
            rebuild=rebuild,
            question_key=question_key,
            answer_key=answer_key,
            on_event=shown.on_event,
        )
        shown.show(result, ui.ingest_view, f"memtune tune{with_options(project, config, settings)}")


@app.command(
    epilog='\b\nExamples:\n  memtune probe "What is part HT-4471?"\n  memtune probe --file questions.jsonl --json\n'
    '  memtune probe "What is the capital of Australia?" --explain --answer Canberra --html why.html'
    '\n  memtune probe "What is part HT-4471?" --guard store'
)
def probe(
    question: Annotated[str | None, typer.Argument(metavar="QUESTION", help="One question.")] = None,
    file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Ask every question of a file; .txt is one a line, - is standard input."),
    ] = None,
    explain: ExplainOption = False,
    answer: AnswerOption = None,
    trace: TraceOption = False,
    stride: StrideOption = None,
    html: HtmlOption = None,
    guard: GuardOption = None,
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
    with conversation(as_json, quiet) as shown:
        settings = settings_of(shown, config)
        inside = Explaining(answer, trace, stride, html)
        inside.check(explain, file)
        if explain and guard is not None:
            raise MemtuneError("--explain and --guard are two commands", hint="memtune probe QUESTION --explain")
        questions = _questions(question, file)
        if explain:
            inside.show(shown, questions[0], project, settings.seed)
            return
        if guard is not None:
            guarded(shown, questions, project, guard, settings.seed)
            return
        from memtune.probe import probe as run

        for result in run(questions, project, on_event=shown.on_event):
            shown.answer(result)


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
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the place of an earlier export, once this one is complete.")
    ] = False,
    project: ProjectOption = PROJECT,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write a checkpoint that loads without memtune, or a PEFT adapter.

    What is written is asked its facts again in a fresh process, a bundle in one that has transformers alone, before it
    takes its place.
    """
    with conversation(as_json, quiet) as shown:
        settings = settings_of(shown, config)
        check_text(str(out), "OUT")
        from memtune.export import export as run

        result = run(project, out, format=format, link=link, replace=replace, on_event=shown.on_event)
        load = f"AutoModelForCausalLM.from_pretrained({str(out)!r}, trust_remote_code=True)"
        if format == "adapter":
            load = f"import memtune.peft; PeftModel.from_pretrained(base, {str(out)!r})"
        shown.show(result, ui.export_view, *([load] if result.met else []))
        if not result.met:
            lost = f"{len(result.lost):,} of {result.asked:,} facts are not answered exactly by the {format}"
            options = with_options(project, config, settings)
            raise TargetNotMet(f"{lost}:\n{listed(result.lost)}", hint=f"memtune tune --verify all{options}")


def _questions(question: str | None, file: str | None) -> Sequence[str]:
    if (question is None) == (file is None):
        raise MemtuneError("probe takes either one question or --file FILE", hint="memtune probe --help")
    if file is None:
        check_text(str(question))
        return [str(question)]
    check_stdin(file)
    from memtune.facts import read_questions

    return read_questions(file)
