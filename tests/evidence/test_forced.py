"""What one teacher-forced pass reads is what the model says, with a memory and without, however many are asked."""

from __future__ import annotations

import pytest
import torch
from tiny import FACTS

from memtune.config import Config
from memtune.evidence.knowledge.fewshot import Exemplar, FewShot
from memtune.evidence.knowledge.forced import Forced
from memtune.evidence.knowledge.sampled import Sampled
from memtune.fact import Fact
from memtune.ingest import ingest
from memtune.memory.module import Attachment
from memtune.project import Project
from memtune.store import load_memory
from memtune.tune import tune

STORED = [Fact(name, question, answer) for name, question, answer in FACTS]
OTHERS = [Fact("capital", "What is the capital of France?", "Paris"), Fact("sky", "What colour is the sky?", "Blue")]
SHOWN = (Exemplar("Who built the pier?", "Ann."), Exemplar(FACTS[1][1], FACTS[1][2]))  # one of them is stored
CLOSE = {"rtol": 1e-4, "atol": 1e-3}


@torch.inference_mode()
def plain_logits(backbone, prompt, answer):
    """What the model itself says, hooks and all, in one pass without any cache."""
    return backbone.model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 :]


def all_logits(forced, facts):
    prompts = [forced.fewshot.prompt(SHOWN, fact.question) for fact in facts]
    answers = [forced.fewshot.answer(fact.answer) for fact in facts]
    return prompts, answers, dict(forced.logits(prompts, answers))


@pytest.mark.parametrize("format", ["template", "qa"])
def test_without_a_memory_it_is_the_model(backbone, format):
    facts = [*STORED, *OTHERS]
    prompts, answers, logits = all_logits(Forced(backbone, FewShot(backbone.prompts, format)), facts)
    for i in range(len(facts)):
        torch.testing.assert_close(logits[i], plain_logits(backbone, prompts[i], answers[i]), **CLOSE)


def test_with_a_memory_it_is_the_model_that_the_memory_is_attached_to(backbone, memory):
    facts = [*STORED, *OTHERS]
    prompts, answers, logits = all_logits(Forced(backbone, FewShot(backbone.prompts), memory), facts)
    attachment = Attachment(backbone.model, memory)
    try:
        for i in range(len(facts)):
            torch.testing.assert_close(logits[i], plain_logits(backbone, prompts[i], answers[i]), **CLOSE)
    finally:
        attachment.detach()


def test_where_nothing_fires_a_memory_changes_no_bit(backbone, memory):
    fewshot = FewShot(backbone.prompts)
    with_it, without = (all_logits(Forced(backbone, fewshot, held), OTHERS)[2] for held in (memory, None))
    assert all(torch.equal(with_it[i], without[i]) for i in range(len(OTHERS)))


def test_stored_facts_are_known_behind_exemplars_and_were_not_before(backbone, memory):
    fewshot = FewShot(backbone.prompts)
    assert all(found.greedy for found in Forced(backbone, fewshot, memory).readings(SHOWN, STORED, 0))
    assert not any(found.greedy for found in Forced(backbone, fewshot).readings(SHOWN, STORED, 0))


def test_the_order_and_the_company_of_a_fact_say_nothing(backbone, memory):
    forced = Forced(backbone, FewShot(backbone.prompts), memory)
    facts = [*STORED, *OTHERS]
    together = forced.readings(SHOWN, facts, 0)
    for found in (forced.readings(SHOWN, facts[::-1], 0)[::-1], [forced.readings(SHOWN, [f], 0)[0] for f in facts]):
        assert [one.greedy for one in found] == [one.greedy for one in together]
        assert [one.sampled for one in found] == pytest.approx([one.sampled for one in together], rel=1e-3, abs=1e-9)


def test_generation_says_what_was_read(backbone, memory):
    fewshot, facts = FewShot(backbone.prompts), [*STORED, *OTHERS]
    sampled = Sampled(backbone, fewshot, memory)
    try:
        drawn = sampled.readings(SHOWN, facts, 8)
    finally:
        sampled.close()
    exact = Forced(backbone, fewshot, memory).readings(SHOWN, facts, 8)
    assert [one.greedy for one in drawn] == [one.greedy for one in exact] == [True] * len(STORED) + [False, False]
    assert [one.sampled for one in drawn] == pytest.approx([one.sampled for one in exact], abs=0.05)


def test_without_a_chat_template_a_memory_is_read_too(tmp_path, base_checkpoint, base_backbone, facts_file):
    config = Config(model=base_checkpoint)
    ingest(facts_file, tmp_path / "project", config, backbone=base_backbone)
    assert tune(tmp_path / "project", config, backbone=base_backbone).met
    memory, fewshot = load_memory(Project(tmp_path / "project")), FewShot(base_backbone.prompts)
    facts = [*STORED[:3], *OTHERS]  # of one line each: a line break ends an answer here
    sampled = Sampled(base_backbone, fewshot, memory)
    try:
        drawn = sampled.readings(SHOWN, facts, 0)
    finally:
        sampled.close()
    exact = Forced(base_backbone, fewshot, memory).readings(SHOWN, facts, 0)
    assert [one.greedy for one in drawn] == [one.greedy for one in exact] == [True] * 3 + [False, False]
