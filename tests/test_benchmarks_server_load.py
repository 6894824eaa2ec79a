"""The server under load: what is counted as wrong, how its memory is watched, and the whole of it for some seconds."""

from __future__ import annotations

import json
import os
import sys

import pytest
import server_load
from server_load import Load, Question, growth, resident
from tiny import FACTS, write_facts

ASKED = [
    Question("fact", "Where is the valve?", "In the cellar."),
    Question("fact", "Where is the tap?", "In the yard."),
    Question("near miss", "Where is the lamp?", "I do not"),
    Question("unrelated", "Who are you?", "A model"),
]


@pytest.fixture
def load():
    return Load(server=None, bundle="bundle", asked=ASKED, seconds=0)


@pytest.mark.parametrize(
    ("number", "said", "counted"),
    [
        (0, "In the cellar.", "as_expected"),
        (0, "In the yard.", "wrong_fact"),
        (0, "Nowhere", "wrong_fact"),
        (2, "I do not", "as_expected"),
        (2, "In the cellar.", "wrong_fact"),
        (3, "A mode", "otherwise"),
    ],
)
def test_what_is_counted_as_what(load, number, said, counted):
    load.judge(ASKED[number], said, 0.5)
    figures = load.tallies[ASKED[number].kind].figures()
    assert {name: figures[name] for name in ("as_expected", "wrong_fact", "otherwise")} == {
        name: int(name == counted) for name in ("as_expected", "wrong_fact", "otherwise")
    }


def test_memory_that_grows_is_seen_and_the_start_does_not_count_for_it():
    filling = [(float(second), 1000 if second >= 20 else 100) for second in range(60)]
    assert growth(filling)["bytes_a_minute"] == pytest.approx(0, abs=1e-6)
    leaking = [(float(second), 1000 + 5 * second) for second in range(60)]
    assert growth(leaking)["bytes_a_minute"] == pytest.approx(300)
    assert growth(leaking)["bytes_most"] == 1295


def test_a_process_holds_some_memory():
    assert resident(os.getpid()) > 1 << 20


@pytest.mark.slow
def test_clients_at_once_get_their_own_facts(bundle, tmp_path, monkeypatch):
    for name in ("fastapi", "uvicorn", "openai"):
        pytest.importorskip(name)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(server_load, "LONGEST", 60)
    facts = write_facts(tmp_path / "facts.jsonl", FACTS[:4])
    others = tmp_path / "others.txt"
    others.write_text("What is the capital of France?\nWho are you?\n")
    out = tmp_path / "out.json"
    words = ["--bundle", bundle, "--facts", facts, "--near-miss", others, "--unrelated", others, "--out", out]
    words += ["--clients", 12, "--minutes", 0.2, "--batch-tokens", 256, "--blocks", 16]
    monkeypatch.setattr(sys, "argv", ["server_load.py", *map(str, words)])
    assert server_load.main() == 0
    kinds = json.loads(out.read_text())["kinds"]
    assert kinds["fact"]["as_expected"] == kinds["fact"]["answered"] > 0
    assert all(kind["failed"] == kind["wrong_fact"] == 0 for kind in kinds.values())
