"""Measuring a tuned project: eval."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from memtune import ui
from memtune.cli.shared import (
    ConfigOption,
    JsonOption,
    ProjectOption,
    QuietOption,
    SeedOption,
    app,
    conversation,
    listed,
    settings_of,
)
from memtune.config import Config
from memtune.errors import TargetNotMet
from memtune.project import PROJECT


@app.command(
    "eval",
    epilog="\b\nExamples:\n  memtune eval --paraphrases paraphrases.jsonl --near-miss near_miss.jsonl\n"
    "  memtune eval --paraphrases paraphrases.jsonl --min-recall 0.99 --min-near-miss 0.99 --json\n"
    "  memtune eval --paraphrases paraphrases.jsonl --baseline rag --notes 3",
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
    baseline: Annotated[
        str | None,
        typer.Option(metavar="rag", help="Ask the same questions of the backbone with facts in its prompt: retrieval."),
    ] = None,
    notes: Annotated[int, typer.Option(metavar="N", help="Facts in the baseline's prompt at most.")] = 3,
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
    with conversation(as_json, quiet) as shown:
        settings = settings_of(shown, config, verify=verify, seed=seed)
        from memtune.evaluate import Baseline, Floors, QuestionFiles, Scope
        from memtune.evaluate import evaluate as run

        result = run(
            project,
            settings,
            files=QuestionFiles(paraphrases, near_miss, unrelated),
            floors=Floors(min_recall, min_exact, min_near_miss, min_unrelated),
            scope=Scope(sample, longest),
            baseline=Baseline(baseline, notes),
            out=out,
            on_event=shown.on_event,
        )
        shown.show(result, ui.eval_view)
        missed = [f"{floor}" for floor in result.floors if not floor.met]
        if missed:
            raise TargetNotMet(missed_list(missed), hint=f"every failure is listed in {result.page}")


def missed_list(missed: Sequence[str]) -> str:
    return f"{len(missed)} floor{'s were' if len(missed) > 1 else ' was'} missed:\n{listed(missed)}"
