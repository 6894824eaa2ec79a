"""Views of what tuning would take, and of what came of a plan."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from memtune.ui.parts import LIST_CAP, fields, plain_table, size
from memtune.visible import visible

if TYPE_CHECKING:
    from memtune.evidence.forecast import Forecast
    from memtune.plan import PlanResult

__all__ = ["forecast_view", "plan_view"]


def plan_view(result: PlanResult) -> Iterable[RenderableType]:
    """What each way to teach the facts takes, then each shard, and how that was measured."""
    if result.costs:
        yield _costs(result)
    if len(result.shards) > 1:
        yield from _shards(result)
    yield fields(
        facts=f"{result.facts:,}, {result.already:,} of them learned already",
        time=f"{result.seconds:,.0f} s for the slowest shard, {result.alone:,.0f} s for one process",
        measured=f"{result.timed:,} facts in {result.timed_seconds:.1f} s here; loading the model took "
        f"{result.load_seconds:.1f} s more",
    )


def _costs(result: PlanResult) -> Table:
    table = plain_table()
    table.add_column("way")
    for column in ("epochs", "operations", "seconds", "energy", "size"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("by")
    for cost in result.costs:
        flops = "-" if cost.flops is None else f"{cost.flops:.2g}"
        seconds = "-" if cost.seconds is None else f"{cost.seconds:,.0f}"
        joules = cost.joules(result.watts)
        energy = "-" if joules is None else f"{joules / 3600:,.2g} Wh"
        table.add_row(*map(Text, (cost.way, f"{cost.epochs:,}", flops, seconds, energy, size(cost.bytes), cost.how)))
    return table


def _shards(result: PlanResult) -> Iterable[RenderableType]:
    table = plain_table()
    for column in ("shard", "facts", "answer tokens", "size", "seconds"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("first and last fact")
    for shard in result.shards[:LIST_CAP]:
        numbers = (shard.shard, f"{shard.facts:,}", f"{shard.answer_tokens:,}", size(shard.bytes))
        ends = f"{shard.first}, {shard.last}" if shard.facts else "none"
        table.add_row(*map(Text, (*numbers, f"{shard.seconds:,.0f}", visible(ends))))
    yield table
    if len(result.shards) > LIST_CAP:
        yield Text(f"and {len(result.shards) - LIST_CAP:,} more")


def forecast_view(result: Forecast) -> Iterable[RenderableType]:
    """Each figure as planned and as measured."""
    table = plain_table()
    for column in ("", "planned", "measured", "measured / planned"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for held in result.figures:
        numbers = (f"{held.planned:,.1f}", f"{held.measured:,.1f}", f"{held.ratio:.2f}")
        table.add_row(*map(Text, (held.what, *numbers)))
    yield table
    yield fields(facts=f"{result.facts:,}")
