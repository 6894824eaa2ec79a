"""Figures of the benchmarks as SVG, written by hand: side by side as bars, growth as lines in log-log."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
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

Figures = Mapping[str, Any]
Place = Callable[[float], float]  # from a figure to pixels

# Growth: a panel for seconds and one for bytes, each with the figures that it shows.
PANELS = (
    (
        "seconds",
        (
            ("ingest_seconds", "ingest", "#1b7837"),
            ("tune_seconds", "tune", "#762a83"),
            ("export_seconds", "export", "#b35806"),
            ("lookup_seconds_per_question", "one lookup", "#2166ac"),
        ),
    ),
    (
        "bytes",
        (
            ("ingest_peak_bytes", "ingest, peak memory", "#1b7837"),
            ("tune_peak_bytes", "tune, peak memory", "#762a83"),
            ("project_bytes", "on disk", "#b35806"),
        ),
    ),
)
# What is known: a bar for each group in each state of the model, cut into its categories.
KNOWN = {"HighlyKnown": "#1b7837", "MaybeKnown": "#a6dba0", "WeaklyKnown": "#c2a5cf", "Unknown": "#762a83"}
STATES = {"before": "before", "memory": "taught by memtune", "model": "now", "lora": "taught by LoRA"}
SIDE, MARGIN, LINE = 300, 60, 16  # px: a panel's sides, room for its ticks, a line of the legend


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
    return _svg(LEFT + FULL + RIGHT, TOP + len(methods) * group, parts)


def growth_plot(result: Figures) -> str:
    """Cost over facts, both logarithmic. The dashed line has slope 1: ten times the facts, ten times the cost."""
    rows = result["sizes"]
    parts: list[str] = []
    for number, (unit, figures) in enumerate(PANELS):
        parts += _panel(MARGIN + number * (SIDE + MARGIN), unit, figures, rows)
    return _svg(2 * SIDE + 3 * MARGIN, SIDE + 2 * MARGIN + LINE * 4, parts)


def knowledge_plot(result: Figures) -> str:
    """How the facts of each group are spread over the categories, before and after."""
    rows = [(group, state) for group in result["groups"] for state in result["counts"]]
    group = BAR * len(result["counts"]) + GAP
    parts = [
        f'<rect x="{10 + place * 150}" y="10" width="10" height="10" fill="{colour}"/>'
        + _text(25 + place * 150, 19, name, "start")
        for place, (name, colour) in enumerate(KNOWN.items())
    ]
    for number, (name, state) in enumerate(rows):
        block, place = divmod(number, len(result["counts"]))
        top, facts = TOP + block * group + place * BAR, result["groups"][name]
        parts.append(_text(LEFT - 10, top + BAR - 2, f"{name} ({facts} facts), {STATES[state]}", "end"))
        left = float(LEFT)
        for category, colour in KNOWN.items():
            width = FULL * result["counts"][state][name].get(category, 0) / facts
            parts.append(f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{BAR - 1}" fill="{colour}"/>')
            left += width
    return _svg(LEFT + FULL + RIGHT, TOP + len(result["groups"]) * group, parts)


def _panel(left: float, unit: str, figures: Sequence[tuple[str, str, str]], rows: Sequence[Figures]) -> list[str]:
    values = [row[key] for key, _, _ in figures for row in rows]
    across, facts = _axis([row["facts"] for row in rows], left, left + SIDE)
    up, costs = _axis(values, MARGIN + SIDE, MARGIN)
    parts = [_stroke([(across(at), MARGIN), (across(at), MARGIN + SIDE)], "#dddddd") for at in facts]
    parts += [_stroke([(left, up(at)), (left + SIDE, up(at))], "#dddddd") for at in costs]
    parts += [_text(across(at), MARGIN + SIDE + 14, f"{at:,.0f}", "middle", 10) for at in facts]
    parts += [_text(left - 4, up(at) + 4, f"{at:.0e}", "end", 10) for at in costs]
    parts.append(_text(left + SIDE / 2, MARGIN - 12, f"{unit} over facts", "middle"))
    decades = min(len(facts), len(costs)) - 1
    steepest = [(facts[0], costs[0]), (facts[0] * 10**decades, costs[0] * 10**decades)]
    parts.append(_stroke([(across(x), up(y)) for x, y in steepest], "#999999", 'stroke-dasharray="4 4"'))
    for number, (key, name, colour) in enumerate(figures):
        parts.append(_stroke([(across(row["facts"]), up(row[key])) for row in rows], colour, 'stroke-width="2"'))
        parts.append(_text(left + 10, MARGIN + SIDE + 34 + LINE * number, f"{name}{_slope(rows, key)}", "start"))
        parts.append(
            f'<rect x="{left - 6}" y="{MARGIN + SIDE + 25 + LINE * number}" width="10" height="10" fill="{colour}"/>'
        )
    return parts


def _axis(values: Sequence[float], start: float, end: float) -> tuple[Place, list[float]]:
    """Where a value stands between the pixels ``start`` and ``end``, and the powers of ten from below all to above."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)

    def place(value: float) -> float:
        return start + (end - start) * (math.log10(value) - low) / (high - low)

    return place, [10.0**power for power in range(low, high + 1)]


def _slope(rows: Sequence[Figures], key: str) -> str:
    """The exponent between the last two sizes, where the constant part is least."""
    for one, other in list(pairwise(rows))[-1:]:
        rise = math.log(other[key] / one[key]) / math.log(other["facts"] / one["facts"])
        return f", exponent {rise:.2f} at the end"
    return ""


def _stroke(points: Sequence[tuple[float, float]], colour: str, more: str = "") -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" {more}/>'


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
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
