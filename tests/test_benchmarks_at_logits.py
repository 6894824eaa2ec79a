"""The benchmark that compares the memory at the logits with the memory behind the hidden state."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tiny import FACTS, PARAPHRASES

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import at_logits

from memtune.fact import Fact
from memtune.logits import LogitMemory


@pytest.fixture
def measured(backbone, memory, bundle):
    return lambda facts: at_logits.measure(backbone, memory, LogitMemory.load(str(bundle)), facts)


def test_the_memory_says_the_same_in_both_places(measured):
    figures = measured([Fact(*fact) for fact in FACTS])
    assert figures["exact_behind_the_state"] == figures["exact_at_the_logits"] == figures["asked"] == len(FACTS)
    assert figures["exact_in_one_alone"] == 0
    assert figures["least_sure_token_at_the_logits"] > 0.5


def test_an_answer_that_the_memory_does_not_give_is_counted_as_none(measured):
    wrong = Fact("tram", FACTS[2][1], "Nowhere at all.")
    figures = measured([Fact(*FACTS[0]), wrong])
    assert (figures["asked"], figures["exact_behind_the_state"], figures["exact_at_the_logits"]) == (2, 1, 1)


def test_other_wordings_are_read_with_the_answers_of_their_facts(tmp_path):
    path = tmp_path / "questions.jsonl"
    row = {"id": "tram", "question": PARAPHRASES["tram"][0], "answer": "By the harbour."}
    path.write_text(json.dumps(row) + "\n")
    [fact] = at_logits.other_wordings(str(path))
    assert (fact.id, fact.question, fact.answer) == ("tram", PARAPHRASES["tram"][0], "By the harbour.")
