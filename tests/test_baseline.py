"""Eval's questions, answered by the untouched backbone with facts in its prompt."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
from rich.console import Console
from tiny import FACTS

from memtune.asking import Answer, Asker
from memtune.baseline import Baseline, Rag
from memtune.errors import ConfigError
from memtune.evaluate import Scope, evaluate
from memtune.fact import Fact
from memtune.measures import Case, Measure, Outcome
from memtune.page import render
from memtune.ui import eval_view

STORED = [Fact(name, question, answer) for name, question, answer in FACTS]
ROOM = 512


def cases(count=2):
    return [Case.alone(fact.question, i, fact.answer) for i, fact in enumerate(STORED[:count])]


def measured(group, asked):
    return Measure.of("exact", "tuned wording", group, "stored", [Outcome(0.0, True, True, True)] * asked)


class Scripted:
    """An Asker whose backbone says what it finds quoted in its prompt, and whose memory is silent."""

    def __init__(self, asker):
        self.backbone, self.memory, self.asked = asker.backbone, asker.memory, []

    def converse(self, conversations, longest, *, memory=True):
        self.asked += [(turns, limit, memory) for turns, limit in zip(conversations, longest, strict=True)]
        said = [turns[-2]["content"] if len(turns) > 1 else "nothing" for turns in conversations]
        return [Answer(text, tuple(text.encode()), (), True) for text in said]


@pytest.fixture
def asker(backbone, memory):
    asker = Asker(backbone, memory)
    yield asker
    asker.attachment.detach()


@pytest.fixture
def rag(asker):
    def rag(notes=1, room=ROOM):
        return Rag(Scripted(asker), STORED, Baseline("rag", notes), 8, room)

    return rag


def test_recall_wants_the_answer_that_stands_in_the_note(rag):
    one = rag()
    found = one.measure(measured("recall", 2), cases(), lambda count: None)
    assert (found.good, found.asked, found.share, found.memtune_share) == (2, 2, 1.0, 1.0)
    assert (found.contained, found.found) == (1.0, 1.0)
    turns, limit, memory = one.asker.asked[0]
    assert [turn["content"] for turn in turns] == [STORED[0].question, STORED[0].answer, STORED[0].question]
    assert limit > len(STORED[0].answer) // 8 and memory is False


def test_the_extra_tokens_are_those_that_the_notes_add(rag, backbone):
    one = rag()
    found = one.measure(measured("recall", 1), cases(1), lambda count: None)
    whole = backbone.prompts.render(list(one.asker.asked[0][0]))
    bare = backbone.prompts.render([{"role": "user", "content": STORED[0].question}])
    assert found.extra_tokens == len(whole) - len(bare) > 0


def test_unchanged_compares_with_the_backbone_without_notes(rag):
    strange = [Case.alone("zyx qwv"), Case.alone("Who built the tram?")]
    found = rag().measure(measured("unchanged", 2), strange, lambda count: None)
    assert (found.good, found.contained, found.found) == (
        1,
        None,
        None,
    )  # the first question has no note, so its prompt is the same


def test_an_answer_with_words_around_it_is_contained_and_not_exact(rag):
    one = rag()
    whole = one.asker.converse
    one.asker.converse = lambda *given, **options: [
        replace(a, text=f"It is {a.text}") for a in whole(*given, **options)
    ]
    found = one.measure(measured("recall", 2), cases(), lambda count: None)
    assert (found.good, found.contained) == (0, 1.0)


def test_progress_counts_every_output(rag):
    one, told = rag(), []
    for group in ("recall", "unchanged"):
        told.clear()
        one.measure(measured(group, 2), cases(), told.append)
        assert sum(told) == one.generations(measured(group, 2), cases())


def test_notes_that_the_model_has_no_room_for_are_left_out(rag, backbone):
    bare = len(backbone.prompts.render([{"role": "user", "content": STORED[0].question}]))
    found = rag(notes=3, room=bare + 20).measure(measured("recall", 1), cases(1), lambda count: None)
    assert (found.extra_tokens, found.good) == (0, 0)


def test_seconds_are_compared_on_the_same_questions_and_limits(rag):
    one = rag()
    found = one.measure(measured("recall", 2), cases(), lambda count: None)
    assert found.timed == 2 and found.seconds >= 0 and found.memtune_seconds >= 0
    with_notes, with_memory = one.asker.asked[-4:-2], one.asker.asked[-2:]
    assert [memory for *_, memory in with_notes + with_memory] == [False, False, True, True]
    assert [limit for _, limit, _ in with_notes] == [limit for _, limit, _ in with_memory]


@pytest.mark.parametrize(("wrong", "said"), [({"name": "cag"}, "--baseline is 'cag'"), ({"notes": 0}, "notes is 0")])
def test_impossible_baselines(wrong, said):
    with pytest.raises(ConfigError, match=said):
        Baseline(**wrong)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def result(tuned, config, backbone, out):
    scope, beside = Scope(sample=3, longest=4), Baseline("rag", 2)
    return evaluate(tuned, config, scope=scope, baseline=beside, out=out, backbone=backbone)


class TestInEval:
    def test_every_suite_is_asked_again_and_no_condition(self, result):
        plain = {m.key: m for m in result.measures if "/" not in m.key}
        assert [m.key for m in result.baseline.measures] == list(plain)
        assert all(m.asked == plain[m.key].asked for m in result.baseline.measures)
        assert all(m.memtune_share == plain[m.key].share for m in result.baseline.measures)

    def test_random_weights_make_nothing_of_notes_and_pay_for_them(self, result):
        exact = result.baseline.measures[0]
        assert (exact.good, exact.found, exact.memtune_share) == (0, 1.0, 1.0)
        assert exact.extra_tokens > 20

    def test_it_stands_in_the_json_the_page_and_the_table(self, result, out):
        assert json.loads((out / "eval.json").read_text("utf-8"))["baseline"]["notes"] == 2
        assert "Beside retrieval (rag)" in (out / "eval.html").read_text("utf-8")
        console = Console(record=True, width=160)
        for part in eval_view(result):
            console.print(part)
        assert "the same questions by rag, 2 facts in the prompt" in console.export_text()

    def test_a_page_without_a_baseline_does_not_speak_of_one(self, result):
        assert "Beside retrieval" not in render(asdict(replace(result, baseline=None)))
