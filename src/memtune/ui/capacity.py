"""What capacity found, as a person reads it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from memtune.ui.parts import fields, size
from memtune.visible import visible

if TYPE_CHECKING:
    from memtune.evidence.capacity import CapacityResult
    from memtune.evidence.capacity_report import Asked
    from memtune.evidence.randomization import Arm
    from memtune.evidence.regularization import Effect

__all__ = ["capacity_view"]


ARM = ("learner", "answers", "exact", "rounds", "s a fact", "bits", "bits/parameter", "bits/byte", "size")
EFFECT = ("model", "held-out", "control", "options right", "perplexity", "logits", "off")


def capacity_view(result: CapacityResult) -> Iterable[RenderableType]:
    """What was learned and how well it is kept, what became of everything else, and where recall breaks."""
    yield Text(f"learned until {result.until_loss:g} nats per answer token:")
    yield _table(ARM, 2, map(_arm, result.arms))
    yield Text("everything else, beside the backbone:")
    yield _table(EFFECT, 1, (_effect(effect, result.asked) for effect in result.effects))
    if result.sweep:
        yield Text("sweep:")
        yield _table(ARM, 2, map(_arm, result.sweep))
    yield fields(questions=result.source, page=result.page, json=result.json, time=f"{result.seconds:.0f} s")


def _table(columns: Sequence[str], words: int, rows: Iterable[Sequence[str]]) -> Table:
    """The first ``words`` columns are words, the others figures."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < words else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, map(visible, row)))
    return table


def _arm(arm: Arm) -> Sequence[str]:
    stored = arm.stored
    bits = ("",) * 3
    if arm.bits is not None:
        bits = (f"{arm.bits:,.0f}", f"{arm.bits / stored.parameters:.3f}", f"{arm.bits / stored.bytes:.3f}")
    rounds = "not reached" if arm.rounds is None else str(arm.rounds)
    exact = f"{arm.exact:,} of {arm.facts:,}"
    return arm.learner, arm.answers, exact, rounds, f"{arm.seconds / arm.facts:.2f}", *bits, size(stored.bytes)


def _effect(effect: Effect, asked: Asked) -> Sequence[str]:
    off = {None: "", True: "identical", False: "CHANGED"}[effect.off_identical]
    return (
        f"{effect.learner}, {effect.answers}" if effect.answers else effect.learner,
        f"{effect.held_out} of {asked.held_out}",
        f"{effect.control} of {asked.control}",
        f"{effect.right} of {asked.choices}",
        f"{effect.perplexity:.2f}",
        "identical" if effect.identical else "changed",
        off,
    )
