"""What is put around a question leaves the question in it, and a typo leaves every name and code alone."""

from __future__ import annotations

import pytest
from tiny import FACTS

from memtune.conditions import CONDITIONS, Surroundings, passage_lines, typo
from memtune.facts import Fact
from memtune.lessons import background_prompts
from memtune.measures import Case
from memtune.suites import heldout_prompts

FACT_LIST = [Fact(*row) for row in FACTS]
CASE = Case.alone(FACT_LIST[0].question, 0, FACT_LIST[0].answer)
BY_KEY = {condition.key: condition for condition in CONDITIONS}


def names(words):
    """Here a name has a capital inside the question, or a digit."""
    return [any(c.isdigit() for c in word) or (i > 0 and word[0].isupper()) for i, word in enumerate(words)]


def frequency(word):
    return 100.0 if word in {"what", "where", "built", "number"} else 1.0


@pytest.fixture
def around(backbone):
    return Surroundings(backbone.prompts, FACT_LIST, names, frequency)


@pytest.fixture
def base_around(base_backbone):
    return Surroundings(base_backbone.prompts, FACT_LIST, names, frequency)


def build(key, around, case=CASE, number=0):
    return BY_KEY[key].build(case, number, around)


def contents(case):
    return [turn["content"] for turn in case.turns]


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda condition: condition.key)
def test_every_condition_keeps_what_is_asked_for_and_ends_with_the_user(condition, around):
    for number in range(5):
        made = condition.build(CASE, number, around)
        assert (made.fact, made.expected) == (0, "Ann Brock.")
        assert made.turns[-1]["role"] == "user"
        assert made.turns != CASE.turns


@pytest.mark.parametrize("tokens", [50, 200])
def test_the_distracting_text_is_whole_sentences_near_the_wanted_length(tokens, around):
    for number in range(20):
        passage = around.passage(number, tokens)
        longest = max(len(around.prompts.ids(line)) for line in passage_lines())
        assert abs(len(around.prompts.ids(passage)) - tokens) <= longest / 2 + 1
        assert passage.endswith(".") and passage[0].isupper()


def test_questions_that_follow_each_other_stand_behind_other_text(around):
    assert len({around.passage(number, 50) for number in range(len(passage_lines()))}) == len(passage_lines())


def test_text_stands_before_the_question_in_the_same_turn(around):
    for number in (0, 1):
        [content] = contents(build("text-50", around, number=number))
        assert content.endswith(CASE.question) and len(content) > len(CASE.question) + 50


def test_without_a_template_text_is_an_earlier_paragraph(base_around):
    for number in (0, 1):
        [content] = contents(build("text-50", base_around, number=number))
        assert content.endswith(f"\n\n{CASE.question}")


def test_a_system_prompt_needs_a_chat_template():
    assert [condition.key for condition in CONDITIONS if condition.chat_only] == ["system"]


def test_an_earlier_turn_is_on_another_fact_each_time_another_one(around):
    earlier = [contents(build("earlier-turn", around, number=number))[:2] for number in range(5)]
    assert [FACT_LIST[0].question, FACT_LIST[0].answer] not in earlier
    assert len({question for question, _ in earlier}) == 5
    alone = Surroundings(around.prompts, FACT_LIST[:1], names, frequency)
    assert build("earlier-turn", alone) is None


@pytest.mark.parametrize(
    ("key", "question", "changed"),
    [
        ("lower-case", "What is part HT-4471?", "what is part ht-4471?"),
        ("no-question-mark", "What is part HT-4471?", "What is part HT-4471"),
        ("no-question-mark", "등대는 누가 지었나요？", "등대는 누가 지었나요"),
        ("typo", "What is part HT-4471?", "Waht is part HT-4471?"),
    ],
)
def test_small_changes_to_the_question(key, question, changed, around):
    made = build(key, around, Case.alone(question, 0, "a"))
    assert contents(made) == [changed] and made.question == changed


@pytest.mark.parametrize(
    ("key", "question"), [("lower-case", "what?"), ("no-question-mark", "say it"), ("typo", "HT 12")]
)
def test_a_change_that_changes_nothing_is_not_asked(key, question, around):
    assert build(key, around, Case.alone(question, 0, "a")) is None


@pytest.mark.parametrize(
    "question",
    [
        "Who built the lighthouse at Kirkby Strand?",
        "What is part HT-4471?",
        "Where does iPhone x12b end, and what is McAllister's code?",
        "등대지기의 이름은 무엇인가요?",
    ],
)
def test_a_typo_never_hits_a_name_or_a_code(question):
    words = question.split()
    changed = typo(question, names, frequency).split()
    assert len(changed) == len(words)
    for word, after, name in zip(words, changed, names(words), strict=True):
        code = not word.isalpha() or any(c.isupper() for c in word[1:])
        assert after == word or not (name or code)
        assert sorted(after) == sorted(word)


def test_a_typo_hits_the_most_frequent_word():
    assert typo("the brass valve has which number there", names, frequency) == "the brass valve has which nmuber there"


def test_the_held_out_prompts_are_none_that_the_router_was_trained_on():
    held = heldout_prompts()
    assert len(held) >= 60 and len(set(held)) == len(held)
    assert not {text.casefold() for text in held} & {text.casefold() for text in background_prompts()}


def test_the_distracting_text_is_long_enough_for_every_cut():
    assert sum(map(len, passage_lines())) > 3000
    assert all(line.endswith(".") and line == line.strip() for line in passage_lines())
