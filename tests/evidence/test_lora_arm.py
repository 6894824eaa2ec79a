"""The control may store what the memory stores, is asked the same, and leaves the backbone as it was."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from tiny import FACTS

from memtune.backbone import load_backbone
from memtune.errors import ConfigError
from memtune.events import Progress
from memtune.evidence.lora import Lora
from memtune.evidence.storage.lora_arm import Control, teach_lora
from memtune.evidence.storage.randomization import BITS, RANDOM, TRUE, random_answers
from memtune.evidence.storage.regularization import Exam, Examiner
from memtune.fact import Fact

TAUGHT = [Fact(name, question, answer) for name, question, answer in FACTS[:2]]
QUICK = Control(rank=8, rate=1e-2, epochs=60)


@pytest.fixture(scope="module")
def examiner(checkpoint):
    """Over a backbone of its own: its model is changed."""
    return Examiner(load_backbone(checkpoint), Exam((), ("How do tides work?",), (), ("The tram opened.",), 4))


@pytest.fixture(scope="module")
def before(examiner):
    return examiner.sit()


@pytest.fixture(scope="module")
def learned(examiner, before, config):
    events = []
    return *teach_lora(TRUE, TAUGHT, QUICK, replace(config, until_loss=0.05), examiner, events.append), events


def test_it_trains_to_the_target_and_says_the_answers(learned):
    arm, _, events = learned
    assert arm.exact == arm.at_target == arm.facts == 2
    assert arm.rounds == arm.points[-1].round == len(events) < QUICK.epochs
    assert arm.points[-1].worst <= 0.05 < arm.points[0].worst
    assert events[-1] == Progress("LoRA, true answers: epochs", arm.rounds, QUICK.epochs)


def test_the_exam_is_put_to_the_trained_model_and_the_backbone_is_as_it_was(learned, examiner, before):
    assert learned[1] != before
    assert examiner.sit() == before


def test_what_it_trains_is_what_it_stores(learned, examiner):
    stored = learned[0].stored
    with Lora.on(examiner.backbone, rank=8) as lora:
        assert stored.bytes == stored.whole == lora.bytes == 4 * stored.parameters


def test_the_seed_makes_the_run(learned, examiner, config):
    again, _ = teach_lora(TRUE, TAUGHT, QUICK, replace(config, until_loss=0.05), examiner, lambda event: None)
    assert again.points == learned[0].points


def test_random_answers_it_has_not_learned_are_few_bits(examiner, config):
    """One epoch in, an answer costs more than its characters: nothing is stored, and no target was reached."""
    facts = random_answers(TAUGHT, 0)
    arm, _ = teach_lora(RANDOM, facts, replace(QUICK, epochs=1), config, examiner, lambda event: None)
    assert arm.rounds is None and arm.exact == 0
    assert 0 <= arm.bits < 2 * BITS / 2
    assert len(arm.points) == 2


def test_time_that_is_up_ends_it(examiner, config):
    control = replace(QUICK, seconds=1e-6)
    arm, _ = teach_lora(RANDOM, random_answers(TAUGHT, 0), control, config, examiner, lambda event: None)
    assert arm.points[-1].round == 1 and arm.rounds is None


@pytest.mark.parametrize("ranks", [1, 3, 3.4])
def test_its_rank_is_the_one_nearest_to_the_memory_in_bytes(examiner, ranks):
    with Lora.on(examiner.backbone, rank=1) as one:
        each = one.bytes
    assert Control().for_size(examiner.backbone, int(each * ranks)).rank == round(ranks)
    assert Control(rank=32).for_size(examiner.backbone, each).rank == 32
    assert Control().for_size(examiner.backbone, 1).rank == 1


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"rate": -1e-4}, {"epochs": 0}, {"seconds": math.nan}], ids=str)
def test_a_setting_that_trains_nothing_is_refused(wrong):
    with pytest.raises(ConfigError, match=f"--{next(iter(wrong))} is"):
        Control(**wrong)
