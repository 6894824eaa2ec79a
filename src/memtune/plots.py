"""Plots as inline SVG: shares with their intervals, histograms above one another on one axis, and curves.

Colours and text sizes are classes of the page's style sheet, so that a plot is readable in light and dark. Every text
is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Curve", "Marker", "Series", "Share", "curves", "histograms", "shares", "standalone"]

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 720, 64, 20, 16, 52
SHARE_HEIGHT, STRIP = 260, 84  # pixels of a plot of shares, and of one histogram
CURVE_HEIGHT, LEGEND = 320, 16  # pixels of a plot of curves, and of a line of its legend
BINS = 40
ROUND_STEPS = (1, 2, 5, 10)
INTERVALS = 7  # at most, between the ticks of an axis
# A page has these in its style sheet; a plot that stands in a file of its own carries them.
STYLE = (
    "svg{background:#f5f6f8}text{fill:#5d6470;font:11px sans-serif}.grid{stroke:#d9dce1}polyline{fill:none;"
    "stroke-width:2}.right{stroke:#1f6fd0}.near{stroke:#b85c00}.unrelated{stroke:#4a7d3f}"
    ".marker{stroke:#b3261e;stroke-width:1.5;stroke-dasharray:5 4}"
)


@dataclass(frozen=True)
class Share:
    """One point: a share of ``asked`` with its bounds, under its label on the axis."""

    label: str
    share: float
    low: float
    high: float
    asked: int


@dataclass(frozen=True)
class Series:
    """The values of one histogram. ``style`` is the class of its bars."""

    name: str
    values: tuple[float, ...]
    style: str


@dataclass(frozen=True)
class Curve:
    """Points ``(x, y)`` from left to right; those whose ``y`` is not above 0 have no place. ``style``: of its line."""

    name: str
    points: tuple[tuple[float, float], ...]
    style: str


@dataclass(frozen=True)
class Marker:
    """A line at ``at``: through all histograms, or across the curves."""

    at: float
    name: str


def shares(points: Sequence[Share], *, title: str, x: str, y: str) -> str:
    """Points with their 95 % intervals, from 0 to 100 % or from the lowest bound on."""
    floor = math.floor(min((point.low for point in points), default=0) * 10) / 10
    plot = SHARE_HEIGHT - TOP - BOTTOM

    def height(share: float) -> float:
        return TOP + plot * (1 - (share - floor) / (1 - floor or 1))

    parts = []
    for tick in range(round(floor * 10), 11, 1 if floor >= 0.5 else 2):
        parts += _grid_line(height(tick / 10), f"{tick * 10} %")
    step = (WIDTH - LEFT - RIGHT) / max(1, len(points))
    for place, point in enumerate(points):
        centre = LEFT + step * (place + 0.5)
        told = f"{point.label}: {point.share:.1%} of {point.asked:,}, 95 % interval {point.low:.1%} to {point.high:.1%}"
        parts.append(
            f'<g class="right"><title>{escape(told)}</title>'
            f'<line x1="{centre:.1f}" x2="{centre:.1f}" y1="{height(point.low):.1f}" y2="{height(point.high):.1f}"/>'
            f'<circle cx="{centre:.1f}" cy="{height(point.share):.1f}" r="5"/></g>'
        )
        parts.append(_text(centre, SHARE_HEIGHT - BOTTOM + 16, point.label))
        parts.append(_text(centre, SHARE_HEIGHT - BOTTOM + 30, f"n = {point.asked:,}"))
    parts += _axis_names(SHARE_HEIGHT, x, y)
    return _svg(SHARE_HEIGHT, title, parts)


def histograms(
    series: Sequence[Series], *, title: str, x: str, y: str, marker: Marker | None, log: bool = False
) -> str:
    """One histogram under the other over the same axis; ``log``: the values are logarithms to base 10."""
    finite = [value for one in series for value in one.values if math.isfinite(value)]
    ends = finite + ([marker.at] if marker and math.isfinite(marker.at) else [])
    if not ends:
        return ""
    ticks = _ticks(min(ends), max(ends), least=1.0 if log else 0.0)
    low, high = ticks[0], ticks[-1]
    total = TOP + STRIP * len(series) + BOTTOM

    def across(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / (high - low)

    parts = []
    for place, one in enumerate(series):
        base = TOP + STRIP * (place + 1)
        parts += _bars(one, base, low, high)
    for tick in ticks:
        label = f"{10**tick:.0e}" if log else f"{tick:g}"
        parts.append(_text(across(tick), total - BOTTOM + 16, label))
    if marker and math.isfinite(marker.at):
        at = across(marker.at)
        side = ("start", 4) if at < WIDTH * 0.7 else ("end", -4)
        parts.append(f'<line class="marker" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 8}" y2="{total - BOTTOM}"/>')
        parts.append(_text(at + side[1], TOP, marker.name, anchor=side[0]))
    parts += _axis_names(total, x, y)
    return _svg(total, title, parts)


def curves(series: Sequence[Curve], *, title: str, x: str, y: str, marker: Marker | None = None) -> str:
    """Curves over one another, ``y`` logarithmic; "" where there is nothing to draw."""
    kept = [
        Curve(one.name, tuple((at, math.log10(value)) for at, value in one.points if 0 < value < math.inf), one.style)
        for one in series
    ]
    points = [point for one in kept for point in one.points]
    if not points:
        return ""
    floor = [math.log10(marker.at)] if marker and marker.at > 0 else []
    across = _ticks(0, max(at for at, _ in points), least=1.0)
    up = _ticks(min([*floor, *(value for _, value in points)]), max(value for _, value in points), least=1.0)
    base = CURVE_HEIGHT - BOTTOM

    def place(at: float, value: float) -> tuple[float, float]:
        right = LEFT + (WIDTH - LEFT - RIGHT) * at / across[-1]
        return right, TOP + (base - TOP) * (up[-1] - value) / (up[-1] - up[0])

    parts = [part for tick in up for part in _grid_line(place(0, tick)[1], f"{10**tick:g}")]
    parts += [_text(place(tick, up[0])[0], base + 16, f"{tick:g}") for tick in across]
    for number, one in enumerate(kept):
        parts += _curve(one, [place(*point) for point in one.points], TOP + LEGEND * (number + 1))
    if marker and floor:
        at = place(0, floor[0])[1]
        parts.append(f'<line class="marker" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(_text(LEFT + 6, at - 5, marker.name, anchor="start"))
    return _svg(CURVE_HEIGHT, title, [*parts, *_axis_names(CURVE_HEIGHT, x, y)])


def _curve(one: Curve, places: Sequence[tuple[float, float]], legend: float) -> list[str]:
    """The line, and its name in the corner, where a curve that falls is not."""
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    end = WIDTH - RIGHT - 6
    return [
        f'<polyline class="{one.style}" points="{line}"><title>{escape(one.name)}</title></polyline>',
        f'<line class="{one.style}" x1="{end - 24}" x2="{end}" y1="{legend - 4}" y2="{legend - 4}"/>',
        _text(end - 30, legend, one.name, anchor="end"),
    ]


def standalone(svg: str) -> str:
    """A plot as a file of its own, without the style sheet of a page around it."""
    return svg.replace("<svg ", f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" ', 1).replace(
        "<title>", f"<style>{STYLE}</style><title>", 1
    )


def _bars(one: Series, base: float, low: float, high: float) -> list[str]:
    counts = [0] * BINS
    for value in one.values:
        if math.isfinite(value):
            counts[min(BINS - 1, int((value - low) / (high - low) * BINS))] += 1
    tallest, width = max(counts) or 1, (WIDTH - LEFT - RIGHT) / BINS
    parts = [f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>']
    for number, count in enumerate(counts):
        if count:
            tall = (STRIP - 24) * count / tallest
            start = low + (high - low) * number / BINS
            told = f"{one.name}: {count:,} from {start:.2f} to {start + (high - low) / BINS:.2f}"
            parts.append(
                f'<rect class="{one.style}" x="{LEFT + number * width + 1:.1f}" y="{base - tall:.1f}" '
                f'width="{width - 2:.1f}" height="{tall:.1f}"><title>{escape(told)}</title></rect>'
            )
    parts.append(_text(LEFT - 6, base - STRIP + 28, f"{tallest:,}", anchor="end"))
    parts.append(_text(LEFT - 6, base, "0", anchor="end"))
    return [*parts, _text(WIDTH - RIGHT, base - STRIP + 22, f"{one.name} (n = {len(one.values):,})", anchor="end")]


def _ticks(low: float, high: float, *, least: float) -> list[float]:
    """Round numbers at least ``least`` apart, some six of them, from at or below ``low`` to above ``high``."""
    span = max(high - low, 1e-9, abs(high) * 1e-3)
    power = 10 ** math.floor(math.log10(span / INTERVALS))
    step = max(least, next(power * factor for factor in ROUND_STEPS if power * factor * (INTERVALS + 0.001) >= span))
    first, last = math.floor(low / step), math.floor(high / step) + 1
    return [number * step for number in range(first, last + 1)]


def _grid_line(at: float, label: str) -> list[str]:
    line = f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
    return [line, _text(LEFT - 6, at + 4, label, anchor="end")]


def _axis_names(height: float, x: str, y: str) -> list[str]:
    middle = (height - BOTTOM + TOP) / 2
    turned = (
        f'<text x="14" y="{middle:.1f}" text-anchor="middle" transform="rotate(-90 14 {middle:.1f})">{escape(y)}</text>'
    )
    return [_text((WIDTH + LEFT - RIGHT) / 2, height - 6, x), turned]


def _text(x: float, y: float, words: str, *, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _svg(height: float, title: str, parts: Sequence[str]) -> str:
    inside = "".join(parts)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{inside}</svg>"
    )
