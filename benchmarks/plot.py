"""The side-by-side figures as one SVG of horizontal bars, written by hand: four figures for each method."""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape

BARS = (
    ("exact", "exact", "#1b7837", "exact"),
    ("paraphrase", "exact", "#7fbf7b", "paraphrases exact"),
    ("near_miss", "unchanged", "#762a83", "near misses unchanged"),
    ("unrelated", "unchanged", "#af8dc3", "unrelated unchanged"),
)
LEFT, FULL, RIGHT = 330, 400, 60  # px: room for names, a bar of 100 %, room for its figure
BAR, GAP, TOP = 12, 14, 40


def plot(result: dict[str, Any]) -> str:
    """Methods that failed are left out, and sets of questions that were not asked."""
    methods = [method for method in result["methods"].values() if "failed" not in method]
    group = BAR * len(BARS) + GAP
    parts = [_legend()]
    for number, method in enumerate(methods):
        top = TOP + number * group
        parts.append(_text(LEFT - 10, top + 2.3 * BAR, method["says"], "end"))
        for place, (kind, figure, colour, _) in enumerate(BARS):
            if method[kind]["asked"]:
                parts.append(_bar(top + place * BAR, method[kind][figure] / method[kind]["asked"], colour))
    width, height = LEFT + FULL + RIGHT, TOP + len(methods) * group
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    style = 'font-family="sans-serif" font-size="12"'
    ground = f'<rect width="{width}" height="{height}" fill="white"/>'
    return "\n".join([f"{head} {style}>", ground, *parts, "</svg>"]) + "\n"


def _legend() -> str:
    width = (LEFT + FULL + RIGHT) // len(BARS)
    return "\n".join(
        f'<rect x="{10 + i * width}" y="10" width="10" height="10" fill="{colour}"/>\n'
        + _text(25 + i * width, 19, name, "start")
        for i, (_, _, colour, name) in enumerate(BARS)
    )


def _bar(top: float, share: float, colour: str) -> str:
    width = max(1.0, share * FULL)  # a figure of zero is still seen
    rect = f'<rect x="{LEFT}" y="{top}" width="{width:.1f}" height="{BAR - 1}" fill="{colour}"/>'
    return rect + "\n" + _text(LEFT + width + 4, top + BAR - 2, f"{share:.0%}", "start", 10)


def _text(x: float, y: float, text: str, anchor: str, size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'
