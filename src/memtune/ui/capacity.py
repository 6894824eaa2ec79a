"""What capacity found, as a person reads it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from memtune.ui.parts import fields, plain_table, size
from memtune.visible import visible

if TYPE_CHECKING:
    from memtune.evidence.storage.capacity import CapacityResult
    from memtune.evidence.storage.capacity_report import Asked
    from memtune.evidence.storage.randomization import Arm
    from memtune.evidence.storage.regularization import Effect

__all__ = ["capacity_view"]


ARM = ("learned", "exact", "rounds", "s a fact", "bits", "a parameter", "a byte")
EFFECT = ("everything else", "held-out", "control", "options", "perplexity", "logits", "off")


def capacity_view(result: CapacityResult) -> Iterable[RenderableType]:
    """What was learned and how well it is kept, what became of everything else, and where recall breaks."""
    yield _table(ARM, map(_arm, result.arms))
    yield _table(EFFECT, (_effect(effect, result.asked) for effect in result.effects))
    if result.sweep:
        yield _table(("sweep", *ARM[1:]), map(_arm, result.sweep))
    kept = {arm.learner: f"{_kept(arm)}, {arm.details}" for arm in result.arms if arm.bits is not None}
    yield fields(
        questions=f"{result.facts:,} of {result.source}, learned until {result.until_loss:g} nats per answer token",
        **kept,
        page=result.page,
        json=result.json,
        time=f"{result.seconds:.0f} s",
    )


def _kept(arm: Arm) -> str:
    router = f", {size(arm.stored.whole)} with its router" if arm.stored.whole > arm.stored.bytes else ""
    experts = f"{arm.stored.experts:,} experts, " if arm.stored.experts else ""
    return f"{experts}{size(arm.stored.bytes)}{router}"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """The first column names what the figures are of."""
    table = plain_table()
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, map(visible, row)))
    return table


def _arm(arm: Arm) -> Sequence[str]:
    bits: Sequence[str] = ("",) * 3
    if arm.bits is not None:
        ratios = (arm.bits / arm.stored.parameters, arm.bits / arm.stored.bytes)
        bits = (f"{arm.bits:,.0f}", *(f"{ratio:.2g}" for ratio in ratios))
    rounds = "never" if arm.rounds is None else str(arm.rounds)
    exact = f"{arm.exact:,} of {arm.facts:,}"
    return f"{arm.learner}, {arm.answers}", exact, rounds, f"{arm.seconds / arm.facts:.2f}", *bits


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
