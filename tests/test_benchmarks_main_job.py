"""The benchmark of the main job runs from a fact file to its figures."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tiny import FACTS, PARAPHRASES

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import main_job


def test_measures_recall_paraphrases_and_what_is_left_alone(tmp_path, facts_file, checkpoint):
    other = tmp_path / "other.txt"
    other.write_text("Zyx qwv?\n", encoding="utf-8")
    args = argparse.Namespace(
        facts=facts_file,
        limit=300,
        near_miss=None,
        unrelated=str(other),
        model=checkpoint,
        dtype="auto",
        verify="sample",
    )
    figures = main_job.measure(args, tmp_path)
    assert (figures["exact"]["exact"], figures["bundle"]["exact"]) == (len(FACTS), len(FACTS))
    assert figures["paraphrase"]["asked"] == sum(map(len, PARAPHRASES.values()))
    assert (figures["near_miss"]["asked"], figures["unrelated"]["asked"]) == (0, 1)
    assert figures["peak_bytes"] > 0
