"""An answer under a guard as a person reads it: what was taken back, why, and what that cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from memtune.ui.parts import LIST_CAP, cut, fields, plain_table
from memtune.visible import visible

if TYPE_CHECKING:
    from memtune.evidence.rewinding.guard import GuardResult, Rewind

__all__ = ["guard_view"]

TEXT_CAP = 100  # characters


def guard_view(result: GuardResult) -> RenderableType:
    """The verdict, the tree, the cost, and the first rewinds."""
    entries = {"question": result.question, "fired": result.fact_id or "no fact"}
    entries["guard"] = f"{result.guard}: {result.judged.why}"
    if (tree := result.tree) is not None:
        entries["before"] = cut(result.plain_answer, TEXT_CAP)
        entries["tree"] = (
            f"tries {tree.tries:,}; token sets {tree.sets:,}, fixed early {tree.early:,}; nodes {tree.nodes:,}; "
            f"scores shared {tree.scores_shared:,}; children added {tree.children_added:,}"
        )
    entries["cost"] = (
        f"{result.cost.calls:,} model calls, {result.cost.tokens:,} tokens, {result.cost.seconds:.1f} s: "
        f"{result.ratio:.1f} times the plain answer"
    )
    return Group(fields(**entries), *([_rewinds(result.rewinds)] if result.rewinds else []))


def _rewinds(rewinds: tuple[Rewind, ...]) -> RenderableType:
    table = plain_table(title=f"{len(rewinds):,} rewinds:", title_justify="left")
    table.add_column("", justify="right")
    table.add_column("value", justify="right")
    table.add_column("given up")
    table.add_column("why")
    for number, one in enumerate(rewinds[:LIST_CAP], 1):
        text = f"{one.kept[-TEXT_CAP // 4 :]}|{one.given_up}" if one.kept else one.given_up
        cells = (
            f"{number}",
            f"{one.value:+g}" if one.value else "0",
            visible(cut(text, TEXT_CAP)),
            visible(cut(one.why, TEXT_CAP)),
        )
        table.add_row(*map(Text, cells))
    if len(rewinds) > LIST_CAP:
        table.add_row("", "", Text(f"and {len(rewinds) - LIST_CAP:,} more: --json has them all"))
    return table
