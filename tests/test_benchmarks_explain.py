"""The benchmark of explanations: figures, plots, and replies that are asked for once."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tiny import FACTS, write_judged

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import explain

from memtune.asking import greedy
from memtune.evidence.mechanism.observables import LONGEST

QUESTIONS = [f"{question.rstrip('?')} {number}?" for number in range(3) for _, question, _ in FACTS]


@pytest.fixture
def measure(tuned, checkpoint, backbone, tmp_path, monkeypatch):
    monkeypatch.setattr(explain, "ASKED", ((FACTS[0][1], None), ("What is the capital of France?", "Paris")))
    prompts = backbone.prompts
    rows = [prompts.format.prompt(prompts.question(question)) for question in QUESTIONS]
    replies = [answer.text for answer in greedy(backbone, rows, LONGEST)]
    questions = write_judged(tmp_path / "asked.jsonl", QUESTIONS, replies, lambda number: number % 2)

    def run():
        out = tmp_path / "results" / "explain.json"
        files = ("--questions", questions, "--kept", tmp_path / "kept.jsonl", "--out", out)
        explain.main([str(word) for word in ("--model", checkpoint, "--project", tuned, *files)])
        return json.loads(out.read_text(encoding="utf-8"))

    return run


def test_it_measures_detects_and_draws(measure, tmp_path, capsys, monkeypatch):
    figures = measure()
    first, traced = figures["explained"]
    assert first["trace"] is None and first["memory"]["rank_after"] == 1
    assert traced["trace"]["drawn"] and traced["processor_seconds"]["trace"] > 0
    assert figures["detected"]["asked"]["asked"] == len(QUESTIONS)
    assert sorted(path.name for path in (tmp_path / "results").glob("*.svg")) == [
        "explain.svg",
        "explain_attention.svg",
        "explain_mlp.svg",
    ]
    monkeypatch.setattr(explain, "observed", None)  # nothing is asked for again
    assert measure()["detected"] == figures["detected"]
