"""A small model as judge: its prompt holds the facts, and ranks are counted by pairs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tiny import FACTS

from memtune.asking import said_by
from memtune.evidence.likelihood import token_log_probabilities
from memtune.evidence.verify import Verifier
from memtune.fact import Fact

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from judge import REPLIES, auroc, margins_of, prompt_of


@pytest.mark.parametrize(
    ("right", "wrong", "area"),
    [([2, 3], [0, 1], 1.0), ([0, 1], [2, 3], 0.0), ([1, 1], [1, 1], 0.5), ([0, 2], [1], 0.5)],
)
def test_auroc_counts_pairs(right, wrong, area):
    assert auroc(right, wrong) == area


def test_the_judge_reads_the_statement_and_the_facts_nearest_to_it():
    verifier = Verifier([Fact(name, question, answer) for name, question, answer in FACTS])
    prompt = prompt_of(verifier, "The tram number 12 ends at the pier.")
    assert "The tram number 12 ends at the pier." in prompt and "At the old harbour" in prompt


def test_a_margin_is_how_much_likelier_the_first_reply_is(backbone):
    [margin] = margins_of(backbone, ["Why?"])
    prompt = backbone.prompts.render([said_by("user", "Why?")])
    yes, no = (
        float(token_log_probabilities(backbone, [prompt], [backbone.prompts.answer(reply)])[0].sum())
        for reply in REPLIES
    )
    assert margin == pytest.approx(yes - no, abs=1e-4)
