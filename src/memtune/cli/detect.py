"""Telling wrong replies from right ones: detect."""

from __future__ import annotations

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
    check_stdin,
    conversation,
    settings_of,
)
from memtune.project import PROJECT


@app.command(epilog="\b\nExamples:\n  memtune detect questions.jsonl\n  memtune detect questions.jsonl --json")
def detect(
    facts: Annotated[
        str,
        typer.Argument(
            metavar="FACTS", help="Questions with their right answers, as a file of facts; - is standard input."
        ),
    ],
    seed: SeedOption = None,
    project: ProjectOption = PROJECT,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure how well the backbone's wrong replies can be told from right ones.

    The backbone is asked every question without its memory; a reply is right if the answer stands in it. What can be
    seen of a reply without knowing the answer then ranks wrong above right ones: AUROC, on replies that were not
    fitted. The detector stays in the project, and probe --explain shows what it says.
    """
    with conversation(as_json, quiet) as shown:
        settings = settings_of(shown, config, seed=seed)
        check_stdin(facts)
        from memtune.evidence.mechanism.detect import detect as run

        shown.show(run(facts, project, seed=settings.seed, on_event=shown.on_event), ui.detect_view)
