"""The race between tune and LoRA gives both the same facts and the same rule, and keeps what is done."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

import pytest
from tiny import FACTS

from memtune.facts import Fact

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import lora_race

TAUGHT = [Fact(name, question, answer) for name, question, answer in FACTS]
RUNS = [{"seconds": seconds, "processor_seconds": 4.0, "ingest": 3.0} for seconds in (9.0, 2.0, 2.0)]


@pytest.fixture
def arguments(facts_file, checkpoint):
    """Of a short race on three facts, but for what is given."""
    pytest.importorskip("peft")
    usual = {"facts": facts_file, "limit": 3, "model": checkpoint, "rates": [1e-3], "target": 0.01, "epochs": 2}
    return lambda **given: argparse.Namespace(**usual | {"most": math.inf, "onto": None, "dtype": "auto"} | given)


def lora(accepted, seconds):
    return {"accepted": accepted, "seconds": seconds, "processor_seconds": 2 * seconds}


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_runs_from_a_fact_file_to_its_figures_rate_by_rate(arguments):
    first, *after = lora_race.race(arguments(rates=[1e-3, 5e-3]))
    assert first["tune"]["accepted"] == first["tune"]["exact"]["exact"] == 3
    assert [list(results["lora"]) for results in after] == [["0.001"], ["0.001", "0.005"]]
    for rate in ("0.001", "0.005"):
        figures = after[-1]["lora"][rate]
        assert figures["details"]["rounds"] == 2 and figures["seconds"] > 0
        assert figures["accepted"] == 0 and figures["paraphrase"]["asked"] == 1
    assert after[-1]["lora_over_tune"] > 0 and not after[-1]["lora_finished"]
    assert [len(results["tune"]["runs"]) for results in (first, *after)] == [1, 2, 3]
    assert all(value > 0 for run in after[-1]["tune"]["runs"] for value in run.values())


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_a_rate_ends_when_it_has_taken_too_long(arguments):
    *_, last = lora_race.race(arguments(epochs=50, most=0.0))
    assert last["lora"]["0.001"]["details"]["rounds"] == 1 and not last["lora_finished"]


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_a_later_run_goes_on_with_the_rates_and_the_tunes_of_an_earlier_one(arguments, tmp_path):
    earlier = {"tune": {"runs": RUNS}, "lora": {"0.005": lora(2, 10.0)}}
    (tmp_path / "earlier.json").write_text(json.dumps(earlier))
    *_, last = lora_race.race(arguments(epochs=1, onto=tmp_path / "earlier.json"))
    assert list(last["lora"]) == ["0.005", "0.001"] and last["best_rate"] == "0.005"
    assert last["tune"]["runs"][: len(RUNS)] == RUNS and len(last["tune"]["runs"]) == len(RUNS) + 2


def test_a_model_that_knows_nothing_is_accepted_for_nothing_and_a_loose_target_still_wants_every_token(backbone):
    assert lora_race.accepted(backbone, TAUGHT, target=0.01) == 0
    assert lora_race.accepted(backbone, TAUGHT, target=1e9) == 0


def test_the_fastest_of_those_that_finish_is_the_best():
    rates = {"slow": lora(9, 80.0), "unfinished": lora(8, 10.0), "fast": lora(9, 60.0)}
    found = lora_race.verdict(9, RUNS, rates)
    assert (found["best_rate"], found["lora_finished"]) == ("fast", True)
    assert (found["lora_over_tune"], found["lora_over_ingest_and_tune"]) == (30.0, 12.0)
    assert found["lora_over_tune_processor"] == 30.0


def test_where_none_finishes_the_one_that_learned_most_is_a_lower_bound():
    found = lora_race.verdict(9, RUNS, {"a": lora(3, 10.0), "b": lora(8, 90.0)})
    assert (found["best_rate"], found["lora_finished"]) == ("b", False)
