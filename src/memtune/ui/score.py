"""Scored answers, as a person reads them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from memtune.evidence.truth.f1 import share
from memtune.ui.parts import LIST_CAP, cut, fields
from memtune.visible import visible

if TYPE_CHECKING:
    from memtune.evidence.truth.longform import AnswerScore, Scored
    from memtune.evidence.truth.score import ScoreResult

__all__ = ["score_view"]

TEXT_CAP = 160  # characters of a statement
STYLES = {"supported": "green", "contradicted": "red", "no evidence": "dim"}


def score_view(result: ScoreResult) -> Iterable[RenderableType]:
    """Every statement with its verdict, an answer at a time, and the figures with their K."""
    for answer in result.answers[:LIST_CAP]:
        if answer.question:
            yield Text(visible(cut(answer.question, TEXT_CAP)), "bold")
        yield Padding(_statements(answer), (0, 0, 0, 2))
        if len(result.answers) > 1:
            yield Padding(Text(_figures(answer)), (0, 0, 0, 2))
    if len(result.answers) > LIST_CAP:
        yield Text(f"and {len(result.answers) - LIST_CAP:,} more answers")
    yield fields(**_totals(result), **({"page": result.page, "json": result.json} if result.page else {}))


def _statements(answer: AnswerScore) -> RenderableType:
    if not answer.statements:
        return Text("states nothing")
    table = Table.grid(padding=(0, 2))
    for one in answer.statements:
        kind = f"{one.kind.value}{' again' if one.repeated else ''}"
        table.add_row(Text(kind, STYLES[one.kind.value]), Text(visible(one.fact_id or "")), _said(one))
    return table


def _said(one: Scored) -> Text:
    """A contradicted statement with what is stored instead."""
    text = visible(cut(one.text, TEXT_CAP))
    stored = f" (stored: {visible(cut(one.stored, TEXT_CAP))})" if one.kind.value == "contradicted" else ""
    return Text.assemble(text, (stored, "dim"))


def _figures(answer: AnswerScore) -> str:
    return f"precision {share(answer.precision)}, recall {share(answer.recall)}, F1@{_k(answer.k)} {share(answer.f1)}"


def _totals(result: ScoreResult) -> dict[str, str]:
    many = len(result.answers) > 1
    mean = f" (mean of {len(result.answers):,} answers)" if many else ""
    counts = f"{result.supported:,} supported, {result.contradicted:,} contradicted, {result.no_evidence:,} no evidence"
    entries = {
        "answers": f"{len(result.answers):,}, {result.answered_by}; {result.facts:,} facts",
        "statements": counts,
    }
    entries["precision"] = f"{share(result.precision)}{mean}: supported of all statements, each counted once"
    if not many:
        [answer] = result.answers
        entries["recall"] = f"{share(result.recall)}: {answer.about_said:,} of {answer.about:,} stored facts about it"
        entries[f"F1@{_k(answer.k)}"] = share(result.f1)
        return entries
    k = f"F1@{result.k}" if result.k else "F1@K"
    own = "" if result.k else "; K of each answer: the stored facts about its subjects"
    return entries | {"recall": f"{share(result.recall)}{mean}", k: f"{share(result.f1)}{mean}{own}"}


def _k(k: int | None) -> str:
    return "K" if k is None else f"{k}"
