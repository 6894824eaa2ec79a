"""How an answer comes about, layer by layer, and how well wrong replies are told from right ones, on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from memtune.ui.parts import cut, fields, plain_table
from memtune.visible import visible

if TYPE_CHECKING:
    from memtune.evidence.mechanism.depth import Depth
    from memtune.evidence.mechanism.detect import DetectResult
    from memtune.evidence.mechanism.detector import Auroc
    from memtune.evidence.mechanism.explain import ExplainResult
    from memtune.evidence.mechanism.lens import Curve

__all__ = ["detect_view", "explain_view"]

ROWS = 6  # layers in the table, evenly spread; those where the gold token comes up are added
TEXT_CAP = 60


def explain_view(result: ExplainResult) -> Iterable[RenderableType]:
    """A few layers, what was found in words, and how far the reply is to be trusted."""
    place = result.best or result.start
    gold = f"{result.gold.answer} ({result.gold.source})" if result.gold else "not known: name it with --answer"
    where = f"behind its own words: {cut(place.behind, TEXT_CAP)}" if place.behind else "where the reply begins"
    yield fields(gold=gold, subject=result.subject or "none found", read=where)
    yield _layers(place, result.layers)
    entries = dict(_others(result))
    if entries:
        yield fields(**entries)
    for sentence in result.verdict:
        yield Text.assemble(("- ", "bold"), visible(sentence))


def _layers(place: Depth, layers: int) -> Table:
    table = plain_table()
    curves = [(name, curve) for name, curve in (("gold", place.gold), ("said", place.said)) if curve]
    for name in ("layer", *(f"{name}: {curve.token.replace(' ', '␣')}" for name, curve in curves), "entropy"):
        table.add_column(Text(visible(name)), justify="right", no_wrap=True)
    chosen = {round(step * layers / (ROWS - 1)) for step in range(ROWS)}
    if place.gold:
        chosen |= {layer for layer in place.gold.enters.values() if layer is not None}
    for layer in sorted(chosen):
        figures = [_at(curve, layer) for _, curve in curves]
        table.add_row(*map(Text, (f"{layer}", *figures, f"{place.entropy[layer]:.2f}")))
    return table


def _at(curve: Curve, layer: int) -> str:
    return f"rank {curve.ranks[layer]:,} {curve.probabilities[layer]:7.2%}"


def _others(result: ExplainResult) -> Iterator[tuple[str, str]]:
    """The same token elsewhere, and the detector's word."""
    if result.best and result.start.gold:
        yield "start", f"rank {result.start.gold.rank:,} where the reply begins"
    if result.alone:
        yield "alone", f"rank {result.alone.rank:,} with the subject as the whole question"
    if result.doubt:
        known = f"{_auroc(result.doubt.auroc)} on {result.doubt.asked:,} questions of {result.doubt.facts}"
        yield "doubt", f"{result.doubt.wrong:.0%} that the backbone's own reply is wrong (AUROC {known})"
    yield "time", f"{result.seconds:.1f} s" + (f", trace {result.trace_seconds:.1f} s" if result.trace else "")


def detect_view(result: DetectResult) -> Iterable[RenderableType]:
    """Each observable alone, all together, and where the detector is."""
    table = plain_table()
    table.add_column("observable of the reply")
    table.add_column("AUROC (95 %)", justify="right", no_wrap=True)
    for observable in result.observables:
        table.add_row(Text(observable.name), Text(_auroc(observable.auroc)))
    table.add_row(Text("all together, on replies that were not fitted", "bold"), Text(_auroc(result.together), "bold"))
    yield table
    replies = f"{result.asked - result.wrong:,} of {result.asked:,} hold the answer"
    yield fields(replies=replies, detector=result.file, time=f"{result.seconds:.0f} s")


def _auroc(found: Auroc) -> str:
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"
