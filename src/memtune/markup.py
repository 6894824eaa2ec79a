"""Pages as memtune writes them: one file each, no script, no network, every text escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from string import Template

from memtune.visible import visible

__all__ = ["Cell", "document", "shown", "table", "verdict"]

SHOWN = 300  # characters of a text in a table

Cell = str | tuple[str, str]  # text, or (class, text) where it says yes or no


def document(title: str, parts: Iterable[str]) -> str:
    """A whole page around parts that are markup already."""
    page = Template(files("memtune").joinpath("page.html").read_text(encoding="utf-8"))
    return page.substitute(title=shown(title), body="\n".join(parts))


def shown(text: str) -> str:
    """As text of the page: no markup, and nothing that turns the line around or does not show."""
    return escape(visible(text, keep="\n\t"))


def verdict(good: bool, yes: str, no: str) -> tuple[str, str]:
    return ("yes", yes) if good else ("no", no)


def table(head: Sequence[str], rows: Sequence[Sequence[Cell]], numbers: Sequence[int]) -> str:
    """``numbers``: the columns that are set to the right."""
    titles = "".join(f"<th>{shown(title)}</th>" for title in head)
    body = "".join(
        f"<tr>{''.join(_cell(cell, place in numbers) for place, cell in enumerate(row))}</tr>\n" for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{titles}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def _cell(cell: Cell, number: bool) -> str:
    if isinstance(cell, tuple):
        return f'<td class="{cell[0]}">{shown(cell[1])}</td>'
    text = cell if len(cell) <= SHOWN else f"{cell[:SHOWN]} ..."
    return f'<td class="{"n" if number else "t"}" dir="auto">{shown(text)}</td>'
