"""The benchmark of know sorts, teaches both ways, asks again, and draws what came out."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path
from xml.dom.minidom import parseString

import pytest
from tiny import FACTS, write_facts

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import know
import report
from plot import knowledge_plot

OTHERS = [(f"sky-{name}", f"What colour is the sky over {name}?", f"Blue {name}") for name in "abcd"]


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_measures_before_and_after_both(checkpoint, tmp_path):
    args = Namespace(
        taught=write_facts(tmp_path / "taught.jsonl"),
        held_out=write_facts(tmp_path / "held_out.jsonl", OTHERS[:2]),
        unrelated=write_facts(tmp_path / "unrelated.jsonl", OTHERS[2:]),
        sets=2,
        shots=2,
        format="template",
        sampled=False,
        model=checkpoint,
    )
    result = know.measure(args, tmp_path)
    assert result["counts"]["memory"]["taught"] == {"HighlyKnown": len(FACTS)}
    assert result["damage"]["memory"] == 0
    assert set(result["counts"]) == {"before", "memory", "lora"}
    assert len(result["facts"]) == len(FACTS) + len(OTHERS)
    written = json.loads(json.dumps(result)) | {"command": vars(args), "on": {"commit": "abc"}}
    assert f"| taught | Unknown | {len(FACTS)} | {len(FACTS)} HighlyKnown |" in report.know(written)
    bars = parseString(knowledge_plot(written)).getElementsByTagName("rect")
    assert len(bars) == 1 + 4 + 9 * 4  # ground, legend, three groups in three states
