"""One self-contained HTML page of scored answers: the figures, then every statement with its verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from memtune.evidence.truth.f1 import share
from memtune.markup import document, shown, table

__all__ = ["render"]

Record = Mapping[str, Any]
CLASSES = {"supported": "yes", "contradicted": "no"}
HEAD = ("question", "supported", "contradicted", "no evidence", "precision", "recall", "K", "F1@K")


def render(record: Record) -> str:
    """The page of a ScoreResult, given as plain data."""
    return document("memtune score", (part for section in _SECTIONS for part in section(record)))


def _head(record: Record) -> Iterator[str]:
    yield "<h1>memtune score</h1>"
    yield f"<p>{len(record['answers']):,} answers ({shown(record['answered_by'])}), {record['facts']:,} facts</p>"


def _figures(record: Record) -> Iterator[str]:
    """One row an answer, and the means over those that have a figure."""
    rows = [_figure_row(_question(answer), answer) for answer in record["answers"]]
    rows.append(_figure_row("sums; means of the shares", record))
    yield "<h2>Figures</h2><p>Precision: supported of all statements, each counted once. Recall: of the stored facts "
    yield "about the subject, those that are stated. K: supported statements of a full answer.</p>"
    yield table(HEAD, rows, numbers=range(1, len(HEAD)))


def _figure_row(name: str, one: Record) -> list[str]:
    counts = [f"{one[key]:,}" for key in ("supported", "contradicted", "no_evidence")]
    k = "own" if one["k"] is None else f"{one['k']:,}"
    return [name, *counts, share(one["precision"]), share(one["recall"]), k, share(one["f1"])]


def _statements(record: Record) -> Iterator[str]:
    yield "<h2>Every statement</h2>"
    for answer in record["answers"]:
        rows = [
            [
                one["text"],
                (CLASSES.get(one["kind"], "soft"), f"{one['kind']}{' again' if one['repeated'] else ''}"),
                one["fact_id"] or "",
                one["stored"],
                one["by"],
            ]
            for one in answer["statements"]
        ]
        yield f"<details open><summary>{shown(_question(answer))}: {len(rows):,}</summary>"
        yield table(("statement", "verdict", "fact", "stored", "by"), rows, numbers=())
        yield "</details>"


_SECTIONS = (_head, _figures, _statements)


def _question(answer: Record) -> str:
    return str(answer["question"] or "an answer without a question")
