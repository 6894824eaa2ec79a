"""Pieces of which views are made: named fields, cut texts, sizes, short lists."""

from __future__ import annotations

import math
from typing import Any

from rich.table import Table
from rich.text import Text

from memtune.visible import visible

__all__ = ["LIST_CAP", "PAIR_CAP", "cut", "few", "fields", "plain_table", "size"]

LIST_CAP = 20
PAIR_CAP = 5


def plain_table(**options: Any) -> Table:
    """Columns without lines between them."""
    return Table(box=None, padding=(0, 2, 0, 0), **options)


def fields(**entries: str) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in entries.items():
        table.add_row(Text(name, "bold"), Text(visible(value)))
    return table


def cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]} ... ({len(text) - limit:,} more characters)"


def size(count: int) -> str:
    """Bytes in the largest unit that keeps at least one before the point."""
    power = min(int(math.log(max(count, 1), 1024)), 3)
    return f"{count / 1024**power:.1f} {('B', 'KiB', 'MiB', 'GiB')[power]}" if power else f"{count} B"


def few(ids: tuple[str, ...]) -> str:
    more = f" and {len(ids) - PAIR_CAP:,} more" if len(ids) > PAIR_CAP else ""
    return ", ".join(ids[:PAIR_CAP]) + more
