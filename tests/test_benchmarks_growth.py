"""The growth benchmark runs from synthetic facts to its figures; its exponents are slopes in log-log."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import growth
from plot import PANELS, growth_plot
from tiny_backbone import HIDDEN, save_tiny

from memtune.backbone import load_backbone


@pytest.fixture(scope="module")
def row(checkpoint):
    return growth.measure(6, checkpoint, 4, lambda verb, *arguments: verb(*arguments), lambda row: None)


def test_measures_one_size_from_the_file_to_the_bundle(row):
    assert row["learned"] == row["facts"] == row["bundle_asked"] == row["bundle_exact"] == 6
    assert row["answer_tokens"] > 6 and row["bytes_per_fact"] * 6 == row["project_bytes"] > 0
    assert (
        row["router_bytes_per_fact"] * 6 + row["bank_bytes_per_answer_token"] * row["answer_tokens"]
        < row["project_bytes"]
    )
    assert 0 <= row["paraphrase_recall"] <= 1 and row["asked"] == 4
    assert all(row[key] > 0 for key in growth.GROWING)


def test_what_doubles_with_the_facts_has_exponent_one():
    rows = [{"facts": n} | dict.fromkeys(growth.GROWING, 3.0 * n) for n in (10, 100, 1000)]
    assert growth.exponents(rows) == pytest.approx(dict.fromkeys(growth.GROWING, 1.0))


def lines(svg, **attributes):
    found = [
        line for line in ET.fromstring(svg).iterfind(".//{*}polyline") if attributes.items() <= line.attrib.items()
    ]
    return [[tuple(map(float, point.split(","))) for point in line.get("points").split()] for line in found]


def test_the_plot_has_a_line_of_every_size_for_every_figure_and_one_of_slope_one():
    rows = [{"facts": n} | dict.fromkeys(growth.GROWING, 3.0 * n) for n in (10, 100, 1000)]
    svg = growth_plot({"sizes": rows})
    drawn = lines(svg, **{"stroke-width": "2"})
    assert [len(points) for points in drawn] == [3] * sum(len(figures) for _, figures in PANELS)
    (left, top), *_, (right, bottom) = drawn[0]
    (start, low), (end, high) = lines(svg, **{"stroke-dasharray": "4 4"})[0]
    assert (bottom - top) / (right - left) == pytest.approx((high - low) / (end - start), rel=1e-3)


def test_one_size_alone_can_be_plotted(row):
    ET.fromstring(growth_plot({"sizes": [row]}))


def test_the_tiny_checkpoint_is_the_same_every_time(tmp_path):
    one, other = (load_backbone(save_tiny(tmp_path / name)) for name in ("one", "other"))
    assert one.fingerprint == other.fingerprint and one.hidden == HIDDEN
