"""Detect asks the backbone alone, judges by whether the answer stands in the reply, and keeps the detector."""

from __future__ import annotations

import errno

import pytest
import torch
from tiny import FACTS, write_judged

from memtune.asking import greedy
from memtune.errors import DataError, ProjectError
from memtune.evidence.mechanism.detect import detect, observed
from memtune.evidence.mechanism.detector import Detector, doubt_of
from memtune.evidence.mechanism.lens import Lens
from memtune.evidence.mechanism.observables import LONGEST, OBSERVABLES, observe
from memtune.fact import Fact
from memtune.memory.module import Attachment

QUESTIONS = [f"{question.rstrip('?')} {number}?" for number in range(3) for _, question, _ in FACTS]


@pytest.fixture(scope="module")
def replies(backbone):
    prompts = backbone.prompts
    rows = [prompts.format.prompt(prompts.question(question)) for question in QUESTIONS]
    return [answer.text for answer in greedy(backbone, rows, LONGEST)]


@pytest.fixture
def facts(tmp_path, replies):
    """Every second answer is a word of the model's own reply."""

    return lambda right: write_judged(tmp_path / "questions.jsonl", QUESTIONS, replies, right)


def test_right_and_wrong_are_told_by_the_reply(facts, backbone, replies, done):
    events = []
    result = detect(facts(lambda number: number % 2), done, backbone=backbone, on_event=events.append)
    assert result.asked == len(QUESTIONS) and result.facts == "questions.jsonl"
    assert [reply.reply for reply in result.replies] == replies
    assert result.wrong == sum(reply.wrong for reply in result.replies) >= len(QUESTIONS) / 2
    assert [observable.name for observable in result.observables] == [name for name, _ in OBSERVABLES]
    for found in (*(observable.auroc for observable in result.observables), result.together):
        assert 0 <= found.low <= found.value <= found.high <= 1
    assert (events[-1].done, events[-1].total) == (len(QUESTIONS), len(QUESTIONS))


def test_the_detector_is_kept_and_doubts_a_reply_of_this_backbone(facts, done, backbone):
    result = detect(facts(lambda number: number % 2), done, backbone=backbone)
    kept = Detector.load(done)
    assert str(done / "detector.json") == result.file and kept.auroc == result.together
    prompt = backbone.prompts.format.prompt(backbone.prompts.question(QUESTIONS[0]))
    [answer] = greedy(backbone, [prompt], LONGEST)
    reply = answer.ids[: len(answer.ids) - answer.stopped]
    lens = Lens(backbone)
    doubt = doubt_of(done, lens, prompt, reply)
    assert doubt.wrong == pytest.approx(kept(result.replies[0].figures), abs=1e-4)
    assert (doubt.asked, doubt.facts, doubt.auroc) == (len(QUESTIONS), "questions.jsonl", result.together)
    kept.__class__(**{**vars(kept), "fingerprint": "another"}).save(done)
    assert doubt_of(done, lens, prompt, reply) is None
    (done / "detector.json").unlink()
    assert doubt_of(done, lens, prompt, reply) is None


@pytest.mark.parametrize(("right", "kind"), [(lambda _: False, "right"), (lambda number: number < 3, "right")])
def test_too_few_of_a_kind_teach_nothing(facts, done, backbone, right, kind):
    with pytest.raises(
        DataError, match=rf"of 18 replies are {kind}: a detector needs 5 or more of each kind"
    ) as caught:
        detect(facts(right), done, backbone=backbone)
    assert caught.value.hint.endswith(f"memtune detect --project {done} {done.parent / 'questions.jsonl'}")
    assert not (done / "detector.json").exists()


def test_that_nothing_can_be_kept_is_said_before_anything_is_asked(facts, done, backbone, monkeypatch):
    def refused(directory):
        raise OSError(errno.EROFS, "Read-only file system", str(directory))

    monkeypatch.setattr("memtune.project.check_writable", refused)
    monkeypatch.setattr("memtune.evidence.mechanism.detect.observed", lambda *_: pytest.fail("it was asked"))
    with pytest.raises(ProjectError, match="cannot be written: Read-only file system"):
        detect(facts(lambda number: number % 2), done, backbone=backbone)


def test_a_place_without_a_project_is_said_to_be_none(facts, tmp_path):
    with pytest.raises(ProjectError, match="no finished model"):
        detect(facts(lambda _: True), tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_memory_on_the_model_changes_no_figure(backbone, memory):
    fact = Fact("x", FACTS[0][1], FACTS[0][2])
    [before] = observed(backbone, [fact])
    attachment = Attachment(backbone.model, memory)
    attachment.enabled = False
    [after] = observed(backbone, [fact])
    attachment.detach()
    assert before == after and before.wrong


@torch.inference_mode()
def test_figures_are_those_of_the_models_own_logits(backbone):
    prompt, reply = tuple(range(5, 25)), (30, 31, 32)
    logits = backbone.model(input_ids=torch.tensor([prompt + reply[:-1]])).logits[0, len(prompt) - 1 :]
    chances = logits.log_softmax(-1)
    own = torch.stack([chances[place, token] for place, token in enumerate(reply)])
    entropy = torch.distributions.Categorical(logits=logits).entropy()
    lens = Lens(backbone)
    figures = observe(lens, lens.states(prompt + reply[:-1])[:, len(prompt) - 1 :], reply)
    expected = (entropy[0], own[0].exp(), own.mean(), own.min(), entropy.max())
    assert figures[:5] == pytest.approx([float(value) for value in expected], abs=1e-4)
    layers = len(backbone.states.layers) + 1
    assert (figures[5] * layers) == pytest.approx(round(figures[5] * layers))


def test_an_empty_reply_is_its_stop_token(backbone):
    lens = Lens(backbone)
    states = lens.states(tuple(range(5, 25)))[:, -1:]
    assert observe(lens, states, ()) == observe(lens, states, (backbone.prompts.stop,))


def test_questions_asked_together_have_the_figures_that_each_has_alone(backbone):
    facts = [Fact(str(number), question, "x") for number, question in enumerate(QUESTIONS[:5])]
    for fact, together in zip(facts, observed(backbone, facts), strict=True):
        [alone] = observed(backbone, [fact])
        assert (together.question, together.reply) == (alone.question, alone.reply)
        assert together.figures == pytest.approx(alone.figures, abs=1e-3)
