"""Where the answer would stand: at the start of the reply, or behind words of the model's own."""

from __future__ import annotations

import pytest
import torch

from memtune.evidence.mechanism import places
from memtune.evidence.mechanism.places import holds_answer, places_of, rank_of

PROMPT = (5, 6, 7)


@pytest.fixture
def scripted(backbone, monkeypatch):
    """Logits that a test writes: ``say(step, token, height)``. Of all others the first twenty are the likeliest."""
    logits = torch.zeros(20, backbone.head.out_features)
    logits[:, :20] = 0.5

    def token_logits(_backbone, prompts, answers):
        assert prompts == [PROMPT]
        yield 0, logits[: len(answers[0])]

    monkeypatch.setattr(places, "token_logits", token_logits)

    def say(step, token, height):
        logits[step, token] = height

    return say


def test_the_gold_answer_is_looked_for_all_along_the_reply(backbone, scripted):
    reply = backbone.prompts.ids("The lighthouse was built by")
    behind = backbone.prompts.ids(" Ann Brock")
    last = len(reply) - 1
    scripted(last, behind[0], 5.0)
    scripted(last, 3, 9.0)
    start, best = places_of(backbone, PROMPT, reply, "Ann Brock")
    assert start.row == PROMPT and start.behind == "" and start.gold == backbone.prompts.answer("Ann Brock")[:-1]
    assert best.row == PROMPT + reply[:last] and best.gold == behind
    assert best.behind == backbone.prompts.text(reply[:last])
    assert best.said == 3


def test_it_may_be_the_start_itself(backbone, scripted):
    scripted(0, backbone.prompts.answer("HT-4471")[0], 5.0)
    start, best = places_of(backbone, PROMPT, backbone.prompts.ids("It is the valve"), "HT-4471")
    assert start == best and start.said == start.gold[0]


def test_without_a_gold_answer_or_without_a_reply_there_is_the_start(backbone, scripted):
    scripted(0, 9, 1.0)
    start, best = places_of(backbone, PROMPT, backbone.prompts.ids("It is"), None)
    assert start is best and (start.gold, start.said) == ((), 9)
    start, best = places_of(backbone, PROMPT, (), "Ann")
    assert start == best and start.row == PROMPT


def test_a_rank_is_one_more_than_the_tokens_above():
    assert [rank_of(torch.tensor([3.0, 1.0, 2.0, 2.0]), token) for token in range(4)] == [1, 4, 2, 2]


@pytest.mark.parametrize(
    ("reply", "answer", "expected"),
    [
        ("The capital of France is Paris.", "Paris", True),
        ("the capital is PARIS", "Paris.", True),
        ("It is in Parisia.", "Paris", False),
        ("There are 14 of them", "4", False),
        ("C++ it is", "C++", True),
        ("", "Paris", False),
    ],
)
def test_a_reply_holds_an_answer_as_whole_words(reply, answer, expected):
    assert holds_answer(reply, answer) is expected
