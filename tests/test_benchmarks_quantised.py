"""The benchmark of quantised backbones runs from a checkpoint to its figures."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest
from tiny import FACTS

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import quantised


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft's, for transformers
def test_measures_memory_and_recall_of_every_arm(checkpoint, facts_file, tmp_path):
    pytest.importorskip("torchao")
    strangers = tmp_path / "strangers.txt"
    strangers.write_text("Zyx qwv?\n", encoding="utf-8")
    arms = ["float32", "int8, torchao"]
    args = argparse.Namespace(
        facts=str(facts_file), limit=9, near_miss=str(strangers), questions=9, model=checkpoint, arms=arms
    )
    *_, figures = quantised.run(args, call=lambda step, *arguments: step(*arguments))
    assert list(figures["arms"]) == arms and figures["facts"] == len(FACTS)
    for row in figures["arms"].values():
        assert row["learned"] == row["exact"]["exact"] == row["bundle"]["exact"] == len(FACTS)
        assert row["near_miss"] == {"asked": 1, "silent": 1}
    whole, small = (figures["arms"][arm]["backbone_bytes"] for arm in arms)
    assert small < whole and figures["lora"]["peak_bytes"] > 0
