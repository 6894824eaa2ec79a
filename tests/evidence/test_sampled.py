"""Answers that are really drawn: as often right as the exact chance says, the same in every run."""

from __future__ import annotations

import math

import pytest
import torch

from memtune.backbone import load_backbone
from memtune.evidence.knowledge.fewshot import FewShot
from memtune.evidence.knowledge.forced import Forced
from memtune.evidence.knowledge.sampled import Sampled
from memtune.evidence.knowledge.slick import read
from memtune.fact import Fact

QUESTION, DRAWN = "Who built the pier?", 400


class FirstTwo(FewShot):
    """An answer is its first two tokens, whatever stands behind them: a random model never stops."""

    ends = property(lambda self: range(len(self.prompts.tokenizer)))

    def answer(self, text):
        return tuple(map(int, text.split()))

    def says(self, ids, answer):
        return tuple(ids[:2]) == self.answer(answer)


@pytest.fixture(scope="module")
def sure(checkpoint):
    """A model whose random head was made louder, so that some tokens are far likelier than others."""
    backbone = load_backbone(checkpoint)
    with torch.no_grad():
        backbone.head.weight.mul_(4)
    return backbone


def test_the_share_of_right_samples_is_the_exact_chance(sure):
    fewshot = FirstTwo(sure.prompts)
    prompt = fewshot.prompt((), QUESTION)
    sampled = Sampled(sure, fewshot)
    first, second = zip(*(ids[:2] for ids in sampled._draw(prompt, DRAWN, 2)), strict=True)
    answer = (max(first, key=first.count), second[first.index(max(first, key=first.count))])
    [(_, logits)] = Forced(sure, fewshot).logits([prompt], [answer])
    exact = read(logits[:2], answer[:1], [answer[1]]).sampled
    [found] = sampled.readings((), [Fact("x", QUESTION, " ".join(map(str, answer)))], DRAWN)
    assert 0.005 < exact < 0.995
    assert abs(found.sampled - exact) < 4 * math.sqrt(exact * (1 - exact) / DRAWN)


def test_the_same_seed_draws_the_same_and_leaves_torchs_own_alone(sure):
    prompt = FewShot(sure.prompts).prompt((), QUESTION)
    state = torch.get_rng_state()
    one, again, other = (Sampled(sure, FewShot(sure.prompts), seed=seed)._draw(prompt, 4, 6) for seed in (0, 0, 1))
    assert one == again != other
    assert torch.equal(torch.get_rng_state(), state)


def test_no_samples_are_asked_for_and_none_drawn(sure):
    [found] = Sampled(sure, FewShot(sure.prompts)).readings((), [Fact("x", QUESTION, "Ann")], 0)
    assert (found.greedy, found.sampled) == (False, 0.0)
