"""Probe asks the model and shows which fact spoke, through which experts, how surely, and what else it would say."""

from __future__ import annotations

import pytest
import torch
from tiny import FACTS

from memtune import probe as probing
from memtune.asking import Asker
from memtune.errors import ProjectError
from memtune.probe import probe
from memtune.project import Project
from memtune.store import load_memory

QUESTIONS = [question for _, question, _ in FACTS]
UNKNOWN = ["What is the capital of France?", "Write a poem about trees."]


@pytest.fixture
def ask(tuned, backbone):
    def run(*questions):
        return list(probe(questions, tuned, backbone=backbone))

    return run


def test_a_stored_question_gets_its_answer_and_names_its_fact(ask):
    for found, (name, question, answer) in zip(ask(*QUESTIONS), FACTS, strict=True):
        assert (found.question, found.answer) == (question, answer)
        assert (found.fired, found.fact_id) == (True, name)
        assert found.score >= found.threshold


def test_the_experts_are_those_that_the_fact_owns(ask, memory):
    for i, found in enumerate(ask(*QUESTIONS)):
        first, last = found.experts
        assert (first, last + 1) == (memory.bank.run(i).start, memory.bank.run(i).stop)


def test_every_token_up_to_the_stop_is_shown_with_its_probability(ask):
    [found] = ask(QUESTIONS[1])
    assert "".join(token.token for token in found.token_probs) == "HT-4471<|im_end|>"
    assert all(0.5 < token.probability <= 1 for token in found.token_probs)


def test_an_unknown_question_takes_the_null_route_to_the_models_own_answer(ask, backbone, memory):
    asker = Asker(backbone, memory)
    own = [answer.text for answer in asker.ask(UNKNOWN, memory=False)]
    asker.attachment.detach()
    for found, expected in zip(ask(*UNKNOWN), own, strict=True):
        assert (found.fired, found.fact_id, found.experts) == (False, None, None)
        assert found.answer == found.base_answer == expected


def test_the_models_own_answer_stands_beside_that_of_the_memory(ask, backbone, memory):
    asker = Asker(backbone, memory)
    [own] = asker.ask(QUESTIONS[:1], memory=False)
    asker.attachment.detach()
    [found] = ask(QUESTIONS[0])
    assert found.base_answer == own.text != found.answer


def test_answers_come_in_the_order_of_the_questions_batch_after_batch(ask, monkeypatch):
    monkeypatch.setattr(probing, "BATCH", 2)
    questions = [UNKNOWN[0], *QUESTIONS[:2], UNKNOWN[1], QUESTIONS[4]]
    found = ask(*questions)
    assert [result.question for result in found] == questions
    assert [result.fact_id for result in found] == [None, "lighthouse", "valve", None, "keeper"]


def test_the_same_question_twice_is_answered_twice(ask):
    assert [found.answer for found in ask(QUESTIONS[1], QUESTIONS[1])] == ["HT-4471"] * 2


def test_no_questions_have_no_answers(ask):
    assert ask() == []


def test_the_memory_leaves_the_model_also_when_nobody_listens_to_the_end(tuned, backbone):
    ids = torch.tensor([backbone.prompts.format.prompt(backbone.prompts.question(QUESTIONS[0]))])
    with torch.inference_mode():
        before = backbone.model(ids).logits
        results = probe(QUESTIONS, tuned, backbone=backbone)
        next(results)
        results.close()
        assert torch.equal(backbone.model(ids).logits, before)


def test_facts_that_nobody_tuned_cannot_be_asked(ingested, backbone):
    with pytest.raises(ProjectError) as caught:
        list(probe(QUESTIONS, ingested, backbone=backbone))
    assert caught.value.hint.startswith("run first: memtune tune")


def test_another_model_is_refused(tuned, base_backbone):
    with pytest.raises(ProjectError, match="not the model"):
        list(probe(QUESTIONS, tuned, backbone=base_backbone))


def test_a_damaged_bank_is_not_read(done, backbone):
    path = Project(done).path("bank")
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(ProjectError, match="is damaged"):
        list(probe(QUESTIONS, done, backbone=backbone))


def test_a_model_named_by_the_project_is_loaded(tuned, config):
    events = []
    [found] = probe(QUESTIONS[:1], tuned, on_event=events.append)
    assert found.fired
    assert events[0].name == config.model
    assert load_memory(Project(tuned)).bank.id_of(0) == found.fact_id
