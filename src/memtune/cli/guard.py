"""The part of probe that answers under a guard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from memtune import ui
from memtune.cli.shared import listed
from memtune.errors import TargetNotMet
from memtune.visible import show

GuardOption = Annotated[
    str | None,
    typer.Option(
        "--guard",
        metavar="store|likelihood|self",
        help="Take back an answer that the facts contradict, that the model is unsure of, or that it calls false "
        "itself, and write another one.",
    ),
]


def guarded(shown: ui.Ui, questions: Sequence[str], project: Path, by: str, seed: int) -> None:
    """Shows each answer with what was taken back. Raises TargetNotMet if the guard still objects to any."""
    from memtune.evidence.rewinding.guard import Setting
    from memtune.evidence.rewinding.guard import guard as run

    left = []
    for result in run(questions, project, by, setting=Setting(seed=seed), on_event=shown.on_event):
        shown.answer(result, ui.guard_view)
        if not result.met:
            left.append(f"{show(result.question)}: {result.judged.why}")
    shown.complete()
    if left:
        raise TargetNotMet(f"{len(left):,} of {len(questions):,} answers do not pass the guard:\n{listed(left)}")
