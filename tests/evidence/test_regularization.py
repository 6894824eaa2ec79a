"""An exam shows every bit that a learner changes, and none where it changes none."""

from __future__ import annotations

import pytest
import torch
from tiny import FACTS

from memtune.asking import Asker
from memtune.evidence.storage.choices import Choice, shipped_choices
from memtune.evidence.storage.regularization import Effect, Exam, Examiner, Sitting

QUESTIONS = tuple(question for _, question, _ in FACTS)
OTHERS = ("What is the capital of France?", "How do tides work?")
LONGEST = 6
CHOICES = (
    Choice("How many legs does a dog have?", ("Ann", "valve", "14", "Green")),
    Choice("Which animal barks?", ("valve", "Ann", "14", "Green")),
)
ALIKE = Choice("Alike?", ("Ann Brock", "Ann Ode", "14", "Green"))
TEXT = ("The tram opened on 14 March.", "First hold the button.")


@pytest.fixture(scope="module")
def examiner(backbone):
    return Examiner(backbone, Exam(OTHERS[:1], OTHERS[1:], CHOICES, TEXT, LONGEST))


@pytest.fixture(scope="module")
def before(examiner):
    return examiner.sit()


@pytest.fixture
def louder(backbone):
    """Makes one logit a little larger, as long as the test runs."""
    hooks = []

    def raise_logit(token, by):
        def hook(_head, _args, out):
            raised = out.clone()
            raised[..., token] += by
            return raised

        hooks.append(backbone.head.register_forward_hook(hook))

    yield raise_logit
    for hook in hooks:
        hook.remove()


def test_a_backbone_sits_the_same_exam_twice_alike(examiner, before):
    assert examiner.sit() == before


def test_answers_are_those_of_generation(backbone, empty_memory, before):
    asker = Asker(backbone, empty_memory)
    try:
        said = asker.ask(OTHERS, longest=LONGEST)
    finally:
        asker.attachment.detach()
    assert [*before.held_out, *before.control] == [answer.ids for answer in said]


def test_nothing_is_changed_by_a_memory_that_knows_none_of_it(examiner, before, memory):
    on, off = examiner.sit_with(memory)
    assert on == off == before
    assert examiner.sit() == before


def test_a_memory_that_is_off_is_the_backbone_even_where_it_would_fire(backbone, memory):
    examiner = Examiner(backbone, Exam(QUESTIONS[:2], QUESTIONS[2:], (), TEXT, LONGEST))
    before = examiner.sit()
    on, off = examiner.sit_with(memory)
    assert off == before
    effect = Effect.of("memory", "true", before, on, off)
    assert (effect.held_out, effect.control) == (0, 0)
    assert effect.off_identical and not effect.identical


def test_one_bit_is_seen(examiner, before, louder):
    louder(7, 1e-4)
    now = examiner.sit()
    assert (now.control, now.picked) == (before.control, before.picked)
    effect = Effect.of("memory", "random", before, now, now)
    assert not effect.identical and not effect.off_identical


def test_the_likeliest_option_is_picked(examiner, backbone, louder):
    louder(backbone.prompts.ids(" Ann")[0], 1e3)
    assert examiner.sit().picked == (0, 1)


def test_options_that_begin_alike_are_not_told_apart(backbone):
    assert backbone.prompts.ids(" Ann Brock")[0] == backbone.prompts.ids(" Ann Ode")[0]
    assert Examiner(backbone, Exam((), OTHERS[:1], (ALIKE,), TEXT, 1)).sit().picked == (None,)


def test_perplexity_is_what_the_text_costs_as_an_answer(backbone, before):
    story = backbone.prompts.render([{"role": "user", "content": "Tell me a story."}])
    text = backbone.prompts.ids(" ".join(TEXT))
    with torch.inference_mode():
        logits = backbone.model(torch.tensor([story + text])).logits[0, len(story) - 1 : -1]
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(text))
    assert before.perplexity == pytest.approx(float(loss.exp()), rel=1e-4)


def test_an_effect_counts_what_is_still_the_same():
    before = Sitting(((1,), (2,)), ((3,), (4,), (5,)), (0, 1, None), 10.0, "a")
    now = Sitting(((1,), (9,)), ((3,), (4,), (9,)), (0, 0, None), 12.0, "b")
    effect = Effect.of("LoRA", "random", before, now)
    assert effect == Effect("LoRA", "random", 1, 2, 2, 12.0, False, None)


def test_the_shipped_exam_is_cut_to_the_sample():
    exam = Exam.shipped(["Who?"], sample=3, longest=4)
    assert (len(exam.held_out), len(exam.control), len(exam.choices)) == (1, 3, 3)
    assert exam.choices == shipped_choices()[:3] and exam.text
