"""Scoring long answers against the facts: score."""

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
    app,
    check_stdin,
    check_text,
    conversation,
    settings_of,
)
from memtune.errors import DataError, MemtuneError
from memtune.project import PROJECT

if TYPE_CHECKING:
    from memtune.evidence.truth.score import Prompt

ASKED_WITH = "memtune score --file"


@app.command(
    epilog='\b\nExamples:\n  memtune score "Tell me about the Curlew 3."\n'
    "  memtune score --answer answer.txt --facts facts.jsonl\n"
    '  memtune score "Tell me about the Curlew 3." --answer answer.txt\n'
    "  memtune score --file prompts.jsonl --k 64 --json"
)
def score(
    question: Annotated[str | None, typer.Argument(metavar="QUESTION", help="What to ask, or what was asked.")] = None,
    answer: Annotated[
        str | None, typer.Option(metavar="FILE", help="A text file with one answer, to score it; - is standard input.")
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Ask every prompt of a file; .txt is one a line. LongFact's files are read."),
    ] = None,
    answered: Annotated[
        bool, typer.Option("--answered", help="Score the answers that the rows of --file hold, and ask nothing.")
    ] = False,
    facts: Annotated[
        str | None, typer.Option(metavar="FACTS", help="File of facts to score against. [default: the project's]")
    ] = None,
    k: Annotated[
        int | None,
        typer.Option(
            "--k",
            metavar="K",
            help="Supported statements of a full answer. [default: as many as facts are stored about its subjects]",
        ),
    ] = None,
    base: Annotated[bool, typer.Option("--base", help="Ask the backbone without its memory.")] = False,
    longest: Annotated[int, typer.Option(metavar="TOKENS", help="Length of an answer at most.")] = 256,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where score.json and score.html go. [default: not written]")
    ] = None,
    project: ProjectOption = PROJECT,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Score long answers against the facts: supported, contradicted, no evidence, F1@K.

    An answer is split into statements; each is looked up in the facts and judged by rules. The tuned model is asked,
    unless the answers are given.
    """
    with conversation(as_json, quiet) as shown:
        settings_of(shown, config)
        prompts = _prompts(question, answer, file, answered=answered)
        from memtune.evidence.truth.score import Setting
        from memtune.evidence.truth.score import score as run

        if facts is not None:
            check_stdin(facts)
        setting = Setting(k=k, memory=not base, longest=longest)
        result = run(prompts, project, facts_file=facts, setting=setting, out=out, on_event=shown.on_event)
        shown.show(result, ui.score_view)


def _prompts(question: str | None, answer: str | None, file: str | None, *, answered: bool) -> list[Prompt]:
    from memtune.evidence.truth.score import Prompt
    from memtune.facts import read_asked
    from memtune.readers import read_text

    if (file is None) == (question is None and answer is None) or (answered and file is None):
        raise MemtuneError(
            "score takes a question, an answer with --answer FILE, both of them, or --file FILE",
            hint="memtune score --help",
        )
    if file is None:
        if question is not None:
            check_text(question)
        check_stdin(answer or "")
        return [Prompt(question or "", None if answer is None else read_text(answer))]
    check_stdin(file)
    rows = read_asked(file, command=ASKED_WITH)
    silent = [f"{row.place}: has no answer to score" for row in rows if answered and not row.answer]
    if silent:
        raise DataError(silent, hint="without --answered, the tuned model is asked")
    return [Prompt(row.question, row.answer if answered else None) for row in rows]
