"""A verdict says what was observed, and no more than that."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from memtune.evidence.mechanism.depth import Depth
from memtune.evidence.mechanism.injection import Injection
from memtune.evidence.mechanism.lens import Curve
from memtune.evidence.mechanism.trace import TraceResult
from memtune.evidence.mechanism.verdict import verdict


def curve(token, *ranks):
    up = {best: next((i for i, rank in enumerate(ranks) if rank <= best), None) for best in (100, 10, 1)}
    return Curve(token, ranks, tuple(1 / (rank + 1) for rank in ranks), up)


START = Depth("", curve("The", 9, 1), curve("Canberra", 800, 300), (-9.0, -4.5), (5.0, 2.0), ("The", "Well", "It"))
BEST = Depth(
    "The capital is", curve(" Sydney", 5, 1), curve(" Canberra", 90, 2), (-9.0, -1.25), (5.0, 1.0), (" Sydney",)
)
MEMORY = Injection(" Ann", 1204, 1, 0.0001, 0.9998, -6.0, -0.001, 1.4, True)
TRACE = TraceResult(
    subject="Australia",
    said=" Sydney",
    gold=" Canberra",
    measure="y",
    clean=2.0,
    corrupted=0.5,
    total_effect=-1.5,
    drawn=24,
    valid=7,
    used=4,
    window=10,
    centres=(0, 3),
    positions=("subject, last: Australia", "last: is"),
    effects={"attention": ((0.1, 0.2), (0.3, 0.9)), "mlp": ((0.7, 0.0), (-0.2, -0.4))},
)


@pytest.fixture
def said():
    found = SimpleNamespace(start=START, best=BEST, memory=None, trace=None, layers=1)

    def say(holds=False, **parts):
        return list(verdict(SimpleNamespace(**{**vars(found), **parts}), holds))

    return say


def test_a_gold_answer_that_is_second(said):
    reply, gold = said()
    assert reply == (
        'The backbone\'s own reply does not hold the gold answer: behind its own words "The capital is" it says '
        '" Sydney".'
    )
    assert gold == (
        'Behind its own words "The capital is" the gold answer\'s first token, " Canberra", ends at rank 2 (33.3%), '
        'after " Sydney". First layers: top 100: 0; top 10: 1; top 1: never. All of the gold answer has -1.25 nats a '
        "token there. Other answers may begin with the same token."
    )


def test_a_gold_answer_that_is_said(said):
    reply, gold = said(holds=True, best=replace(BEST, gold=curve(" Canberra", 90, 1), above=()))
    assert reply == "The backbone's own reply holds the gold answer."
    assert "ends at rank 1 (50.0%). First layers" in gold and "Other answers" not in gold


@pytest.mark.parametrize(
    ("best", "where"),
    [
        (None, "where the reply begins"),
        (
            replace(BEST, gold=curve(" Canberra", 900, 101)),
            'where the reply begins or behind its own words "The capital is"',
        ),
    ],
)
def test_a_gold_answer_that_is_nowhere_near(said, best, where):
    _, gold = said(best=best)
    token = (best or START).gold.token
    assert gold == (
        f'The gold answer\'s first token, "{token}", never enters the top 100 at any layer, {where}: no sign that the '
        "backbone holds this fact."
    )


def test_what_came_up_and_went_down_again_is_not_called_never(said):
    _, gold = said(best=None, start=replace(START, gold=curve("Canberra", 800, 60, 300)))
    assert "ends at rank 300" in gold and "top 100: 1; top 10: never" in gold


def test_no_gold_answer(said):
    assert said(best=None, start=replace(START, gold=None)) == [
        "No gold answer is known, so this shows only how the backbone comes to what it says."
    ]


def test_the_memory(said):
    *_, memory = said(memory=MEMORY)
    assert memory == (
        'The memory puts the stored answer in behind the last layer: " Ann" goes from rank 1,204 (0.01%) to rank 1 '
        "(99.98%). The residual stream of all 1 layers is bit for bit the same with the memory on and off."
    )
    assert "is NOT the same" in said(memory=replace(MEMORY, untouched=False))[-1]


def test_the_trace_in_raw_numbers(said):
    *_, noise, attention, mlp = said(trace=TRACE)
    assert (
        noise == 'Noise on "Australia" lowered y in 7 of 24 draws; over 4 of them it changes y by -1.50 (total effect).'
    )
    assert attention == "Putting attention back brings y up most (+0.90) around layer 4, last: is."
    assert mlp == "Putting MLP back brings y up most (+0.70) around layer 1, subject, last: Australia."


def test_a_trace_whose_rule_never_held_says_nothing(said):
    *_, noise = said(trace=replace(TRACE, valid=0))
    assert noise.endswith("the rule for a valid noise never held, and nothing can be read from the effects.")
    assert not any("Putting" in sentence for sentence in said(trace=replace(TRACE, valid=0)))
