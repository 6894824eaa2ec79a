"""From questions to facts: exact search, then the gate; one route a question, in the order asked."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from tiny import FACTS

from memtune.memory.router import CERTAIN, Route, Router
from memtune.memory.words import word_bucket


@pytest.fixture
def route(backbone, memory):
    def ask(texts, router=memory.router):
        questions = [backbone.prompts.question(text) for text in texts]
        return router.route(questions, backbone.states.early(questions))

    return ask


def test_every_stored_question_takes_the_route_to_its_own_fact(route):
    routes = route([question for _, question, _ in FACTS])
    assert [r.fact for r in routes] == list(range(len(FACTS)))
    assert all(r.fired for r in routes)


def test_a_paraphrase_of_the_file_takes_the_route_to_its_fact(route):
    [found] = route(["What is the last stop of tram 12?"])
    assert found.fired and FACTS[found.fact][0] == "tram"


def test_the_stored_questions_take_their_own_routes_fact_by_fact(memory):
    assert [(r.fact, r.score) for r in memory.router.own_routes()] == [(i, CERTAIN) for i in range(len(FACTS))]


def test_routes_come_in_the_order_of_the_questions(route):
    order = list(range(len(FACTS)))
    random.Random(0).shuffle(order)
    assert [r.fact for r in route([FACTS[i][1] for i in order])] == order


def test_a_question_takes_the_same_route_in_any_company(route):
    texts = [FACTS[0][1], "What is the capital of France?", FACTS[4][1]]
    for text, together in zip(texts, route(texts), strict=True):
        [alone] = route([text])
        assert (alone.fact, alone.fired) == (together.fact, together.fired)
        assert alone.score == pytest.approx(together.score, abs=1e-2)


def test_another_name_in_the_same_bucket_is_not_the_stored_question(route):
    letters = ("".join(name) for name in itertools.product("aeioukrstlmn", repeat=6))
    twin = next(name for name in letters if word_bucket(name) == word_bucket("kirkby"))
    own, other = route([f"Who built the lighthouse at {name} Strand?" for name in ("Kirkby", twin.capitalize())])
    assert own.score == CERTAIN > other.score


@pytest.mark.parametrize("text", ["?!", "🗼🗼", "_", "...", "x" * 300, "등"])
def test_anything_may_be_asked(route, text):
    assert not route([text])[0].fired


def test_no_questions_have_no_routes(route):
    assert route([]) == []


def test_where_nothing_is_stored_every_question_takes_the_null_route(route, empty_memory):
    routes = route(["Who built the lighthouse at Kirkby Strand?", "Hi"], empty_memory.router)
    assert [(r.fact, r.fired) for r in routes] == [(-1, False)] * 2


def test_a_route_fires_from_the_threshold_on():
    assert Route(fact=3, score=1.0, threshold=1.0, similarity=0.9).fired
    assert not Route(fact=3, score=0.99, threshold=1.0, similarity=0.9).fired
    assert not Route(fact=-1, score=2.0, threshold=1.0, similarity=0.9).fired


def test_a_router_built_from_its_sizes_and_tensors_decides_the_same(memory, route):
    again = Router(memory.router.sizes)
    again.load_state_dict(memory.router.state_dict())
    texts = [FACTS[1][1], "What is the part number of the copper valve?", "Tell me a joke"]
    assert route(texts, again) == route(texts)


def test_what_is_far_from_a_stored_question_fires_only_if_it_names_the_same_thing(memory, route, monkeypatch):
    asked = ["Who painted the fence?", "Who built the lighthouse?"]
    monkeypatch.setitem(memory.router._buffers, "threshold", torch.tensor([-20.0]))
    for nearness, fires in ((-1.0, [True, True]), (1.1, [False, True])):  # what names the lighthouse is always heard
        monkeypatch.setitem(memory.router._buffers, "nearness", torch.tensor([nearness]))
        assert [found.fired for found in route(asked)] == fires


def test_caution_is_taken_off_the_score_of_the_question_it_was_set_for(memory, route, monkeypatch):
    asked = [f"{question} Thanks!" for _, question, _ in FACTS]
    before = route(asked)
    more = 2.0 * (memory.router.get_buffer("owner") == before[0].fact)
    monkeypatch.setitem(memory.router._buffers, "caution", memory.router.get_buffer("caution") + more)
    after = route(asked)
    assert after[0].score == pytest.approx(before[0].score - 2, abs=1e-4) or after[0].fact != before[0].fact
    assert after[1] == before[1]


def test_a_turn_is_read_from_its_last_sentences_and_from_more_where_a_stored_question_has_several(backbone, memory):
    question = backbone.prompts.question("One. Two. Three. Four. Five. Who built it?")
    texts = [backbone.prompts.text(part) for part in memory.router.parts(question)]
    assert texts[1:] == ["Four. Five. Who built it?", "Five. Who built it?", "Who built it?"]
    router = Router(memory.config.router)
    router.load_state_dict(memory.router.state_dict())
    stored, owner = memory.router.stored, memory.router.get_buffer("owner")
    router.store(stored, owner, memory.router.lists, sentences=2)
    assert len(router.parts(question)) == len(texts) + 2
