"""Plots hold every value they are given, on an axis that holds every value, and no text of theirs is markup."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

from memtune.plots import Curve, Marker, Series, Share, curves, heat_map, histograms, shares, standalone

NAME = "<b>&"


def drawn(values, **options):
    options = {"marker": None} | options
    return ET.fromstring(histograms([Series("s", tuple(values), "right")], title="t", x="x", y="y", **options))


def counts(svg):
    return [int(re.search(r": (\d+) from", title.text)[1]) for title in svg.iter("title") if ": " in title.text]


def ticks(svg):
    """The numbers on the horizontal axis."""
    texts = [text for text in svg.iter("text") if float(text.get("y")) == float(svg.get("viewBox").split()[3]) - 36]
    return [float(text.text) for text in texts]


@pytest.mark.parametrize(
    "values", [[0], [1, 1, 1], [-3.2, 0, 17.5], [1e-9, 2e-9], [5, 10], [-20.0, 20.0], [1e6, 1e6 + 1], [0.1] * 3 + [0.7]]
)
def test_a_histogram_counts_every_value_once_inside_its_axis(values):
    svg = drawn(values)
    assert sum(counts(svg)) == len(values)
    axis = ticks(svg)
    assert 2 <= len(axis) <= 9
    for rect in svg.iter("rect"):
        assert float(rect.get("x")) >= 64 and float(rect.get("x")) + float(rect.get("width")) <= 701


def test_what_is_not_finite_is_left_out_and_nothing_finite_is_no_plot():
    assert sum(counts(drawn([1.0, -math.inf, 2.0]))) == 2
    assert histograms([Series("s", (-math.inf,), "right")], title="t", x="x", y="y", marker=None) == ""


@pytest.mark.parametrize("at", [-50.0, 0.5, 50.0])
def test_the_marker_is_inside_wherever_it_stands(at):
    [line] = [line for line in drawn([0.0, 1.0], marker=Marker(at, "m")).iter("line") if line.get("class") == "marker"]
    assert 64 <= float(line.get("x1")) <= 700


def test_a_threshold_of_minus_infinity_has_no_line():
    assert not [
        line for line in drawn([1.0], marker=Marker(-math.inf, "m")).iter("line") if line.get("class") == "marker"
    ]


def test_a_logarithmic_axis_has_powers_of_ten():
    assert ticks(drawn([-3.9, -3.7], marker=Marker(-2, "target"), log=True)) == [1e-4, 1e-3, 1e-2, 1e-1]


def test_each_share_has_a_point_and_its_interval():
    points = [Share("a", 0.9, 0.8, 0.95, 40), Share("b", 1.0, 0.97, 1.0, 200)]
    svg = ET.fromstring(shares(points, title="t", x="x", y="y"))
    assert len(list(svg.iter("circle"))) == 2
    for group in svg.iter("g"):
        line, circle = group.find("line"), group.find("circle")
        assert float(line.get("y2")) <= float(circle.get("cy")) <= float(line.get("y1"))  # y grows downwards


def lines(*series, marker=None):
    return ET.fromstring(curves(series, title="t", x="x", y="y", marker=marker))


def places(line):
    return [tuple(map(float, point.split(","))) for point in line.get("points").split()]


@pytest.mark.parametrize("losses", [[6.0, 1.0, 1e-4], [1e-8], [3.0, 3.0], [0.5, 7.0, 0.01, 1e3]], ids=str)
def test_a_curve_has_every_point_inside_its_axes_and_falls_where_the_loss_falls(losses):
    svg = lines(Curve("c", tuple(enumerate(losses)), "right"))
    [line] = svg.iter("polyline")
    found = places(line)
    assert len(found) == len(losses)
    assert all(64 <= x <= 700 and 16 <= y <= 268 for x, y in found)
    for (one, y), (other, below) in pairwise(zip(losses, [y for _, y in found], strict=True)):
        assert (one > other) == (y < below)  # y grows downwards


def test_a_point_of_one_curve_is_level_with_its_like_on_another():
    svg = lines(Curve("a", ((0, 4.0), (1, 0.1)), "right"), Curve("b", ((0, 9.0), (30, 0.1)), "near"))
    first, second = (places(line) for line in svg.iter("polyline"))
    assert first[1][1] == second[1][1] and first[0][0] == second[0][0]
    assert second[1][0] > first[1][0]


def test_a_loss_of_nothing_is_left_out_and_no_loss_is_no_plot():
    [line] = lines(Curve("c", ((0, 4.0), (1, 0.0), (2, math.inf)), "right")).iter("polyline")
    assert len(places(line)) == 1
    assert curves([Curve("c", ((0, 0.0),), "right")], title="t", x="x", y="y") == ""


def test_the_target_is_drawn_below_the_curves_too():
    svg = lines(Curve("c", ((0, 4.0), (1, 1.0)), "right"), marker=Marker(1e-4, "target"))
    [line] = [line for line in svg.iter("line") if line.get("class") == "marker"]
    assert 16 <= float(line.get("y1")) <= 268


def test_a_file_of_its_own_is_the_same_plot_with_its_style():
    plot = curves([Curve("c", ((0, 4.0), (1, 1.0)), "right")], title="t", x="x", y="y")
    alone = ET.fromstring(standalone(plot))
    assert alone.tag == "{http://www.w3.org/2000/svg}svg" and alone.find("{*}style") is not None
    assert len(alone.findall("{*}polyline")) == 1


def test_names_are_text():
    series = [Series(NAME, (1.0, 2.0), "right")]
    drawn = [Curve(NAME, ((0, 1.0), (1, 2.0)), "right")]
    plots = curves(drawn, title=NAME, x=NAME, y=NAME, marker=Marker(1.5, NAME))
    plots += histograms(series, title=NAME, x=NAME, y=NAME, marker=Marker(1.5, NAME))
    plots += shares([Share(NAME, 0.5, 0.4, 0.6, 10)], title=NAME, x=NAME, y=NAME)
    assert "<b>" not in plots and plots.count("&lt;b&gt;&amp;") >= 14


def test_a_heat_map_has_a_cell_for_every_value_fuller_the_further_from_zero():
    rows = [(NAME, (0.0, 1.0, -2.0)), ("b", (4.0, -8.0, 2.0))]
    svg = ET.fromstring(heat_map(rows, ("1", "2", "3"), title="t", x="x", strongest=4.0))
    cells = list(svg.iter("rect"))
    assert [float(cell.get("fill-opacity")) for cell in cells] == [0.0, 0.25, 0.5, 1.0, 1.0, 0.5]
    assert [cell.get("class") for cell in cells] == ["right", "right", "near", "right", "near", "right"]
    assert [cell.find("title").text for cell in cells[:2]] == [f"{NAME}, 1: +0.000", f"{NAME}, 2: +1.000"]
    assert len({(cell.get("x"), cell.get("y")) for cell in cells}) == 6


def test_a_heat_map_of_nothing_but_zeros_is_drawn():
    assert heat_map([("a", (0.0,))], ("1",), title="t", x="x", strongest=0.0).count("<rect") == 1
