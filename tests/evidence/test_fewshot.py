"""Prompts are what the template makes of a chat, or lines of text; answers end where their format ends them."""

from __future__ import annotations

import pytest

from memtune.errors import ConfigError
from memtune.evidence.knowledge.fewshot import Exemplar, FewShot

SHOWN = (Exemplar("Who built the pier?", "Ann Brock."), Exemplar("Where does the tram end?", "At the harbour."))
QUESTION = "What is the part number of the valve?"


@pytest.fixture
def chat(backbone):
    return FewShot(backbone.prompts)


@pytest.fixture
def plain(base_backbone):
    return FewShot(base_backbone.prompts)


@pytest.fixture(params=["chat", "base"])
def lines(request, backbone, base_backbone):
    return FewShot({"chat": backbone, "base": base_backbone}[request.param].prompts, "qa")


def text_of(fewshot, ids):
    return fewshot.prompts.tokenizer.decode(list(ids))


def test_exemplars_are_earlier_turns_of_a_chat(chat):
    turns = [
        {"role": "user", "content": SHOWN[0].question},
        {"role": "assistant", "content": SHOWN[0].answer},
        {"role": "user", "content": QUESTION},
    ]
    assert chat.prompt(SHOWN[:1], QUESTION) == chat.prompts.render(turns)


def test_without_exemplars_a_fact_is_asked_as_everywhere(chat, plain):
    for fewshot in (chat, plain):
        prompts = fewshot.prompts
        assert fewshot.prompt((), QUESTION) == prompts.format.prompt(prompts.question(QUESTION))


def test_without_a_template_exemplars_are_paragraphs(plain):
    said = "Who built the pier? Ann Brock.\n\nWhere does the tram end? At the harbour.\n\n" + QUESTION
    assert text_of(plain, plain.prompt(SHOWN, QUESTION)).endswith(said)


def test_the_papers_format_is_lines(lines):
    said = f"Q: Who built the pier?\nA: Ann Brock.\nQ: {QUESTION}\nA:"
    assert text_of(lines, lines.prompt(SHOWN[:1], QUESTION)).removeprefix("<|im_start|>") == said


def test_a_memory_reads_the_question_alone_behind_any_exemplars(chat, plain):
    for fewshot in (chat, plain):
        asked = fewshot.prompts.question(QUESTION)
        assert [fewshot.prompts.last_question(fewshot.prompt(SHOWN[:n], QUESTION)) for n in range(3)] == [asked] * 3


def test_a_turn_ends_at_the_stop_token_and_a_line_at_its_break_too(chat, plain, lines):
    assert chat.ends == {chat.prompts.stop}
    for fewshot in (plain, lines):
        assert fewshot.prompts.stop in fewshot.ends
        breaks = {text_of(fewshot, [token])[:1] for token in fewshot.ends - set(fewshot.prompts.stop_ids)}
        assert breaks == {"\n"}


def test_a_turn_says_the_answer_if_it_is_that_and_stops(chat):
    ids, stop = chat.prompts.ids("HT-4471"), chat.prompts.stop
    assert chat.says((*ids, stop), "HT-4471")
    assert not chat.says(ids, "HT-4471")
    assert not chat.says((*ids, *chat.prompts.ids("\nand more"), stop), "HT-4471")
    assert not chat.says((*chat.prompts.ids("HT-4472"), stop), "HT-4471")


def test_a_line_says_the_answer_if_it_is_that_and_breaks_or_stops(plain, lines):
    for fewshot in (plain, lines):
        ids, stop = fewshot.answer("HT-4471"), fewshot.prompts.stop
        assert fewshot.says((*ids, stop), "HT-4471")
        assert fewshot.says((*ids, *fewshot.prompts.ids("\nQ: more")), "HT-4471")
        assert not fewshot.says(ids, "HT-4471")
        assert not fewshot.says((*ids, *fewshot.prompts.ids(" B\n")), "HT-4471")


def test_an_unknown_format_is_refused(backbone):
    with pytest.raises(ConfigError) as caught:
        FewShot(backbone.prompts, "xml")
    assert caught.value.hint == "--format takes one of: template, qa"
