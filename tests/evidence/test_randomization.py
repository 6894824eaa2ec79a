"""Random answers are the same for a seed, and what is stored of them can be counted to the bit."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
import torch
from tiny import FACTS

from memtune.asking import Asker
from memtune.events import ignore
from memtune.evidence.likelihood import token_log_probabilities
from memtune.evidence.storage.randomization import BITS, RANDOM, TRUE, bits_stored, random_answers, teach_memory
from memtune.fact import Fact
from memtune.making import with_answers
from memtune.memory.fit import fit_values, token_losses
from memtune.teaching import Teacher

TAUGHT = [Fact(name, question, answer) for name, question, answer in FACTS]
LN2 = math.log(2)


@pytest.fixture(scope="module")
def randomly():
    return random_answers(TAUGHT, 0)


@pytest.fixture(scope="module")
def other_memory(memory, randomly, backbone):
    return with_answers(memory, randomly, backbone)


@pytest.fixture(scope="module")
def arm(other_memory, randomly, backbone, config):
    return teach_memory(RANDOM, randomly, other_memory, backbone, config, ignore)


def test_an_answer_is_32_capitals_and_digits_and_everything_else_stays(randomly):
    for fact, made in zip(TAUGHT, randomly, strict=True):
        assert re.fullmatch("[A-Z0-9]{32}", made.answer)
        assert replace(made, answer=fact.answer) == fact
    assert len({fact.answer for fact in randomly}) == len(randomly)


def test_the_seed_and_the_question_say_the_answer(randomly):
    assert random_answers(TAUGHT[::-1], 0) == randomly[::-1]
    assert not {fact.answer for fact in random_answers(TAUGHT, 1)} & {fact.answer for fact in randomly}


def test_an_answer_is_165_bits():
    assert round(BITS, 1) == 165.4
    assert bits_stored([0.0]) == pytest.approx(32 * math.log2(36))
    assert bits_stored([0.0] * 10) == pytest.approx(10 * BITS)


def test_what_an_answer_still_costs_is_not_stored():
    assert bits_stored([LN2 * 65.4]) == pytest.approx(BITS - 65.4)
    assert bits_stored([LN2 * 10, 0.0]) == pytest.approx(2 * BITS - 10)


def test_an_answer_that_costs_more_than_guessing_counts_as_none():
    assert bits_stored([BITS * LN2 * 3, math.inf]) == 0.0


def test_the_memory_learns_random_answers(arm, randomly, config):
    assert arm.exact == arm.at_target == arm.facts == len(randomly)
    assert arm.loss_max <= config.until_loss
    assert arm.bits == pytest.approx(BITS * arm.facts, rel=1e-3)
    assert arm.rounds is not None and arm.points[arm.rounds].worst <= config.until_loss


def test_the_curve_begins_at_the_loss_of_the_backbone_and_falls(arm, randomly, backbone):
    items = [backbone.prompts.fact(fact) for fact in randomly]
    prompts = [backbone.prompts.format.prompt(item.question) for item in items]
    own = token_log_probabilities(backbone, prompts, [item.answer for item in items])
    assert arm.points[0].mean == pytest.approx(-sum(float(said.mean()) for said in own) / len(own), rel=1e-3)
    means = [point.mean for point in arm.points]
    assert means == sorted(means, reverse=True)
    assert arm.points[-1].certain == arm.facts


def test_recall_grows_with_the_steps(arm):
    certain = [point.certain for point in arm.points]
    assert certain == sorted(certain) and certain[0] < certain[-1]


def test_after_fewer_steps_fewer_answers_are_said(other_memory, arm, randomly, backbone, config):
    """The same by cutting the fit short, which is another way to know it."""
    items = [backbone.prompts.fact(fact) for fact in randomly]
    hidden = torch.cat([states.final for states in backbone.answer_states(items)])
    targets = torch.tensor([token for item in items for token in item.answer])
    up = other_memory.projections.up
    for point in arm.points[:6]:
        low = backbone.readout.rows(up)
        values = fit_values(hidden, targets, backbone.readout, low, config.until_loss / 400, steps=point.round)
        losses = token_losses(hidden + values @ up.T, targets, backbone.readout)
        facts = losses.split([item.experts for item in items])
        assert sum(float(own.max()) < LN2 for own in facts) == point.certain


def test_what_is_stored_is_what_the_bank_holds(arm, other_memory):
    bank = other_memory.bank
    rows = (bank.keys, bank.values, bank.scales)
    assert arm.stored.experts == len(bank.keys) == arm.tokens
    assert arm.stored.bytes == sum(row.numel() * row.element_size() for row in rows) == 164 * arm.tokens
    assert arm.stored.bytes < arm.stored.whole


def test_two_runs_are_alike(arm, memory, randomly, backbone, config):
    again = teach_memory(RANDOM, randomly, with_answers(memory, randomly, backbone), backbone, config, ignore)
    assert replace(again, seconds=arm.seconds, processor_seconds=arm.processor_seconds) == arm


def test_other_answers_behind_the_same_router_leave_the_first_memory_alone(arm, memory, backbone):
    asker = Asker(backbone, memory)
    try:
        said = [answer.text for answer in asker.ask([fact.question for fact in TAUGHT])]
    finally:
        asker.attachment.detach()
    assert said == [fact.answer for fact in TAUGHT]


def test_bits_are_said_of_random_answers_alone(memory, backbone, config):
    arm = teach_memory(TRUE, TAUGHT, with_answers(memory, TAUGHT, backbone), backbone, config, ignore)
    assert arm.bits is None and arm.recall == 1.0


def test_a_fact_that_generation_does_not_say_holds_no_bits(memory, randomly, backbone, config, monkeypatch):
    def refuse(teacher, numbers):
        teacher.bank.accepted[0] = False

    monkeypatch.setattr(Teacher, "verify", refuse)
    arm = teach_memory(RANDOM, randomly, with_answers(memory, randomly, backbone), backbone, config, ignore)
    assert arm.at_target == len(randomly)
    assert arm.bits == pytest.approx(BITS * (len(randomly) - 1), rel=1e-3)
