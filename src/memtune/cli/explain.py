"""What ``probe --explain`` takes and does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from memtune import ui
from memtune.cli.shared import check_text
from memtune.errors import MemtuneError

ExplainOption = Annotated[
    bool, typer.Option("--explain", help="Show how the answer comes about, layer by layer; one question.")
]
AnswerOption = Annotated[
    str | None, typer.Option(metavar="GOLD", help="The right answer to explain, if it is not that of a stored fact.")
]
TraceOption = Annotated[
    bool, typer.Option("--trace", help="Also corrupt the subject and put parts of the layers back, one after another.")
]
StrideOption = Annotated[
    int | None, typer.Option(metavar="N", help="Layers from one traced window to the next. [default: a tenth of them]")
]
HtmlOption = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write the explanation as a page.")]


@dataclass(frozen=True)
class Explaining:
    """The options of an explanation, as they were given."""

    answer: str | None
    trace: bool
    stride: int | None
    html: Path | None

    def check(self, explain: bool, file: str | None) -> None:
        """Raises MemtuneError for options that mean nothing without one another, before any work is done."""
        check_text(self.answer or "", "--answer")
        for option, given in (("--answer", self.answer), ("--trace", self.trace or None), ("--html", self.html)):
            if given is not None and not explain:
                raise MemtuneError(f"{option} belongs to --explain", hint="memtune probe QUESTION --explain")
        if self.stride is not None and (self.stride < 1 or not self.trace):
            wrong = "belongs to --trace" if self.stride >= 1 else f"is {self.stride}, and takes a number of layers"
            raise MemtuneError(f"--stride {wrong}", hint="memtune probe QUESTION --explain --trace --stride 5")
        if explain and file is not None:
            raise MemtuneError("--explain takes one question, not a file", hint="memtune probe QUESTION --explain")
        if self.html is not None and not self.html.parent.is_dir():
            raise MemtuneError(f"{self.html}: {self.html.parent} is no directory", hint="--html takes a file to write")

    def show(self, shown: ui.Ui, question: str, project: Path, seed: int) -> None:
        from memtune.evidence.mechanism.explain import explain
        from memtune.evidence.mechanism.explained_page import write_page
        from memtune.evidence.mechanism.trace import Tracing

        tracing = Tracing(stride=self.stride or 0, seed=seed) if self.trace else None
        result = explain(question, project, answer=self.answer, tracing=tracing, on_event=shown.on_event)
        if self.html is not None:
            write_page(result, self.html)
        if not shown.as_json:
            shown.said(result.probed.answer)
        shown.show(result, ui.explain_view)
