"""The router that ingest builds: its facts' own questions reach them, what is stored nowhere reaches none."""

from __future__ import annotations

from importlib.resources import files

import pytest
from tiny import FACTS

from memtune import routing
from memtune.events import Note
from memtune.fact import Fact
from memtune.memory import index
from memtune.project import Project
from memtune.routing import build_router
from memtune.wordings import Wordings


@pytest.fixture(scope="module")
def route(backbone, memory):
    def ask(texts):
        questions = [backbone.prompts.question(text) for text in texts]
        return memory.router.route(questions, backbone.states.early(questions))

    return ask


@pytest.fixture(scope="module")
def record(tuned):
    return Project(tuned).need("ingest", "memtune ingest FACTS")


@pytest.mark.parametrize("dress", [str, str.lower, lambda text: text.rstrip("?"), lambda text: f"{text} Thanks!"])
def test_a_question_reaches_its_fact_in_every_dress(route, dress):
    routes = route([dress(question) for _, question, _ in FACTS])
    assert [found.fact for found in routes] == list(range(len(FACTS)))
    assert sum(found.fired for found in routes) >= len(FACTS) - 1


def test_its_own_words_fire_every_fact(route):
    assert all(found.fired for found in route([question for _, question, _ in FACTS]))


def test_background_prompts_take_the_null_route(route):
    """At most one in a hundred may fire, which is what the threshold is set to."""
    lines = files("memtune").joinpath("background.txt").read_text(encoding="utf-8").splitlines()
    assert sum(found.fired for found in route(lines)) <= len(lines) // 100


def test_the_threshold_is_the_one_that_was_promised(route, record):
    [found] = route(["Who?"])
    assert found.threshold == pytest.approx(record["threshold"])
    assert record["expected_false_fire"] <= 0.05 and record["expected_recall"] > 0.5


def test_the_facts_that_are_easily_taken_for_each_other_are_told_worst_first(record):
    confusable, questions = record["confusable"], {question for _, question, _ in FACTS}
    assert confusable and all({pair["one"], pair["other"]} <= questions for pair in confusable)
    assert all(pair["one"] != pair["other"] for pair in confusable)
    scores = [pair["score"] for pair in confusable]
    assert scores == sorted(scores, reverse=True)


def test_in_a_large_file_the_index_has_lists_and_says_what_they_find(backbone, monkeypatch):
    monkeypatch.setattr(routing, "list_count", lambda stored: 4)
    notes = []
    wordings = Wordings([Fact(*fact) for fact in FACTS], backbone.prompts.question)
    router, _ = build_router(backbone, wordings, false_fire=0.01, seed=0, on_event=notes.append)
    assert router.sizes.lists == len(router.lists.centroids) == 4
    assert sorted(router.lists.order.tolist()) == list(range(len(FACTS)))
    [said] = [note.text for note in notes if isinstance(note, Note) and "lists" in note.text]
    assert f"into {int(router.lists.probes)} of 4 lists" in said
    asked = [backbone.prompts.question(f"{question} Thanks!") for _, question, _ in FACTS]
    assert [found.fact for found in router.route(asked, backbone.states.early(asked))] == list(range(len(FACTS)))


def test_where_lists_are_of_no_use_the_index_compares_with_all_and_says_so(backbone, monkeypatch):
    monkeypatch.setattr(routing, "list_count", lambda stored: 4)
    monkeypatch.setattr(index, "USEFUL", 0.0)
    notes = []
    wordings = Wordings([Fact(*fact) for fact in FACTS], backbone.prompts.question)
    router, _ = build_router(backbone, wordings, false_fire=0.01, seed=0, on_event=notes.append)
    assert router.sizes.lists == 0
    assert [note.text for note in notes if isinstance(note, Note) and "compares with all" in note.text]
