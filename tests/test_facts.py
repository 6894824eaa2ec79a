"""A fact file gives exact facts, or every reason why not; no bytes at all give a traceback."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest

from memtune.errors import DataError
from memtune.facts import Fact, fold_question, read_facts, read_questions

Json = dict[str, object]


def jsonl(folder: Path, *rows: object) -> Path:
    path = folder / "facts.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def problems(path: Path, **keys: str) -> list[str]:
    with pytest.raises(DataError) as caught:
        read_facts(path, command="memtune ingest", **keys)
    assert caught.value.hint == f"fix the lines above, then run: memtune ingest {path}"
    return [problem.removeprefix(f"{path}:") for problem in caught.value.problems]


def chat(*roles: str) -> Json:
    return {"messages": [{"role": role, "content": f"{role} text"} for role in roles]}


def pairs(facts: Sequence[Fact]) -> list[tuple[str, str]]:
    return [(fact.question, fact.answer) for fact in facts]


@pytest.mark.parametrize("answer", ["answer", "completion", "output", "response", "target", "Answer", " ANSWER"])
@pytest.mark.parametrize("question", ["question", "prompt", "input", "instruction", "Question"])
def test_a_question_and_an_answer_are_known_by_any_of_their_names(tmp_path: Path, question: str, answer: str) -> None:
    assert pairs(read_facts(jsonl(tmp_path, {answer: "a", "extra": [1], question: "q"}))) == [("q", "a")]


def test_the_first_name_of_the_list_wins_and_an_option_overrides_it(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path, {"prompt": "p", "Question": "Q", "question": "q", "target": "t", "output": "o", "Frage": "f"}
    )
    assert pairs(read_facts(path)) == [("q", "o")]
    assert pairs(read_facts(path, question_key="Frage", answer_key="target")) == [("f", "t")]


def test_an_instruction_stands_above_its_input_unless_that_is_blank(tmp_path: Path) -> None:
    inputs = ["x", " ", None]
    path = jsonl(tmp_path, *({"instruction": f"do {i}", "input": x, "output": "o"} for i, x in enumerate(inputs)))
    assert [fact.question for fact in read_facts(path)] == ["do 0\nx", "do 1", "do 2"]
    path = jsonl(tmp_path, {"instruction": "do", "input": "x", "output": "o"})
    assert pairs(read_facts(path, question_key="input")) == [("x", "o")]


def test_a_chat_of_one_user_turn_and_one_assistant_turn_is_a_fact(tmp_path: Path) -> None:
    turns = {"conversations": [{"from": "human", "value": "h"}, {"from": "gpt", "value": "g"}]}
    path = jsonl(tmp_path, chat("user", "assistant"), turns)
    assert pairs(read_facts(path)) == [("user text", "assistant text"), ("h", "g")]
    assert read_questions(jsonl(tmp_path, chat("user"))) == ["user text"]


def test_the_text_is_kept_exactly_but_for_the_white_space_around_it(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"question": "\n q\u0308 \t", "answer": "  a\r\n\tb  c\u2028d \u00e9 e\u0301.  "})
    assert pairs(read_facts(path)) == [("q\u0308", "a\n\tb  c\u2028d \u00e9 e\u0301.")]


def test_a_fact_knows_its_id_its_paraphrases_and_its_line(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path,
        {"id": 7, "question": "q", "answer": 1, "paraphrases": ["r", " s "]},
        {"id": "", "question": "t", "answer": "a", "rephrase": "u"},
    )
    sha = "e3b98a4da31a127d4bde6e43033f66ba274cab0eb7eb1c70ec41402bf6273dd8"  # of "t"
    assert list(read_facts(path)) == [
        Fact("7", "q", "1", ("r", "s"), f"{path}:1"),
        Fact(f"f-{sha[:10]}", "t", "a", ("u",), f"{path}:2"),
    ]


def test_the_id_of_a_fact_does_not_depend_on_the_order_of_the_file(tmp_path: Path) -> None:
    rows = [{"question": f"q{i}", "answer": str(i)} for i in range(5)]
    ids = {fact.question: fact.id for fact in read_facts(jsonl(tmp_path, *rows))}
    assert {fact.question: fact.id for fact in read_facts(jsonl(tmp_path, *reversed(rows)))} == ids
    assert len(set(ids.values())) == 5


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"question": " ", "answer": "a"}, "question is empty"),
        ({"question": "q", "answer": ""}, "answer is empty"),
        ({"question": "q", "answer": True}, 'answer is true, not text: if the word is meant, quote it: "true"'),
        ({"question": "q", "answer": None}, 'answer is null, not text: if the word is meant, quote it: "null"'),
        ({"question": "q", "answer": float("nan")}, 'answer is NaN, not text: if the word is meant, quote it: "NaN"'),
        ({"question": ["q"], "answer": "a"}, "question is a list, not text: ['q']"),
        ({"question": "q", "answer": {"b": "c"}}, "answer is an object, not text: {'b': 'c'}"),
        (
            {"question": "q", "answer": "a", "id": False},
            'id is false, not text: if the word is meant, quote it: "false"',
        ),
        ({"question": "q", "answer": "a", "paraphrases": ["p", ""]}, "paraphrase 2 is empty"),
        ({"question": "q", "answer": "a\x07"}, "answer holds the control character U+0007: 'a\\x07'"),
        ({"question": "q\x85", "answer": "a"}, "question holds the control character U+0085: 'q\\x85'"),
        ({"question": "q", "answer": "a\rb"}, "answer holds the control character U+000D: 'a\\rb'"),
        ({"question": "q", "answer": "\ud800"}, "answer holds the lone surrogate U+D800: '\\ud800'"),
        ({"question": "\u202eq", "answer": "a"}, "question holds the bidirectional control U+202E: '\\u202eq'"),
        ({"question": "q", "answer": "\u2066a"}, "answer holds the bidirectional control U+2066: '\\u2066a'"),
        ("text", "the row is text, not an object with a question and an answer: 'text'"),
        ([], "the row is a list, not an object with a question and an answer: []"),
        ({}, "no question (question or prompt or input or instruction) in an empty row"),
        ({"messages": "x"}, "messages is not a list of turns with a role and a content: 'x'"),
        ({"messages": ["x"]}, "messages is not a list of turns with a role and a content: ['x']"),
        (
            {"messages": [{"role": "user"}, {"role": "assistant", "content": "a"}]},
            'user content is null, not text: if the word is meant, quote it: "null"',
        ),
        (
            chat("system", "user", "assistant"),
            "messages has a system turn, which would be lost: put its text into the question or remove it",
        ),
    ],
)
def test_a_row_that_is_no_fact_is_named_with_its_line_and_value(tmp_path: Path, row: object, problem: str) -> None:
    good = {"question": "good", "answer": "good"}
    assert f"2: {problem}" in problems(jsonl(tmp_path, good, row))


@pytest.mark.parametrize("roles", [["user", "assistant"] * 2, ["assistant"], ["user"], ["user", "tool"], []])
def test_a_chat_that_is_no_single_question_is_refused(tmp_path: Path, roles: list[str]) -> None:
    [problem] = problems(jsonl(tmp_path, chat(*roles)))
    assert problem.startswith("1: memtune stores single questions: messages must be one user turn")
    assert problem.endswith(f"not {', '.join(roles)!r}")


def test_a_misspelt_key_is_named_with_the_one_it_is_close_to(tmp_path: Path) -> None:
    [problem] = problems(jsonl(tmp_path, {"question": "q", "anwser": "a"}))
    names = "answer or completion or output or response or target"
    assert problem == f"1: no answer ({names}) among 'question', 'anwser'; is 'anwser' meant as 'answer'?"
    [problem] = problems(jsonl(tmp_path, {"output": "no 'input', but an answer"}))
    assert problem == "1: no question (question or prompt or input or instruction) among 'output'"
    assert problems(jsonl(tmp_path, chat("user", "assistant")), question_key="frage", answer_key="messages")[0] == (
        "1: no question (frage) among 'messages'"
    )


def test_a_table_without_the_column_is_one_problem_at_its_header(tmp_path: Path) -> None:
    path = tmp_path / "facts.csv"
    path.write_text("question,reply\n" + "q,a\n" * 50)
    [problem] = problems(path, answer_key="antwort")
    assert problem == "1: no answer (antwort) among 'question', 'reply'"


def test_a_long_value_is_shown_shortened(tmp_path: Path) -> None:
    for row in ("y" * 9999, {"question": "q", "answer": ["z" * 99] * 99}, {"k" * 9999: 1, "question": "q"}):
        [problem] = problems(jsonl(tmp_path, row))
        assert len(problem) < 200
        assert "..." in problem


@pytest.mark.parametrize("again", ["who is it", "WHO  is\tit?!", " Who is it. "])
def test_the_same_question_in_another_dress_is_a_duplicate(tmp_path: Path, again: str) -> None:
    rows = [{"question": "Who is it?", "answer": "Ann"}, {"question": again, "answer": "Ann"}]
    assert problems(jsonl(tmp_path, *rows)) == [f"2: the same question and answer as on line 1: {again.strip()!r}"]


@pytest.mark.parametrize(
    ("first", "second", "shown"),
    [
        ({"question": "Who?"}, {"question": "who"}, "who"),
        ({"question": "Who?", "paraphrases": ["Name?"]}, {"question": "name"}, "name"),
        ({"question": "Who?"}, {"question": "Which?", "paraphrases": ["x", "who."]}, "who."),
        ({"question": "Who?", "paraphrases": ["Name?"]}, {"question": "Which?", "paraphrases": ["name"]}, "name"),
        ({"question": "caf\u00e9"}, {"question": "CAFE\u0301"}, "CAFE\u0301"),
    ],
)
def test_two_answers_to_one_wording_are_named_with_both_lines(
    tmp_path: Path, first: Json, second: Json, shown: str
) -> None:
    path = jsonl(tmp_path, {**first, "answer": "Ann"}, {"question": "other", "answer": "x"}, {**second, "answer": "Bo"})
    assert problems(path) == [f"3: line 1 answers {shown!r} otherwise: 'Bo' here, 'Ann' there"]


def test_a_wording_shared_with_the_same_answer_is_accepted(tmp_path: Path) -> None:
    rows = [
        {"question": "Who?", "answer": "Ann", "paraphrases": ["who"]},
        {"question": "Name?", "answer": "Ann", "paraphrases": ["who"]},
    ]
    assert len(read_facts(jsonl(tmp_path, *rows))) == 2


def test_clashes_are_found_among_rows_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    path.write_text(json.dumps([{"question": "q", "answer": answer} for answer in "aab"]))
    assert problems(path) == [
        "1: the same question and answer as on line 1: 'q'",
        "1: line 1 answers 'q' otherwise: 'b' here, 'a' there",
    ]


def test_a_clash_is_found_however_far_apart_its_lines_stand(tmp_path: Path) -> None:
    rows = [{"id": i, "question": f"q{i}", "answer": str(i), "paraphrases": [f"p{i}"]} for i in range(2000)]
    rows[1990] |= {"paraphrases": ["P3!"]}
    rows[1995] |= {"id": 7}
    assert problems(jsonl(tmp_path, *rows)) == [
        "1991: line 4 answers 'P3!' otherwise: '1990' here, '3' there",
        "1996: the id '7' is also that of line 8",
    ]


def test_an_id_used_twice_is_named_with_both_lines(tmp_path: Path) -> None:
    rows = [{"id": 1, "question": "q", "answer": "a"}, {"id": "1", "question": "r", "answer": "b"}]
    assert problems(jsonl(tmp_path, *rows)) == ["2: the id '1' is also that of line 1"]


def test_a_question_of_punctuation_alone_is_compared_as_it_stands() -> None:
    assert fold_question("?!") != fold_question("...")


def test_all_problems_come_in_one_pass_in_the_order_of_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_bytes(
        b'{"question": "q", "answer": "a"}\n{bad\n{"prompt": "q", "output": "b"}\n"\xff"\n{"prompt": "", "output": 0}'
    )
    assert [problem.split(":")[0] for problem in problems(path)] == ["2", "3", "4", "4", "5"]


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    path.write_text('{"data": []}')
    assert problems(path) == [" holds no rows"]


def test_questions_need_no_answer_and_may_be_lines_of_text(tmp_path: Path) -> None:
    text = tmp_path / "q.txt"
    text.write_text(" Who?\n\nWhen, where?\r\n")
    assert read_questions(text) == ["Who?", "When, where?"]
    assert read_questions(jsonl(tmp_path, {"prompt": "p"}, {"question": "q", "answer": None}, "r")) == ["p", "q", "r"]
    text.write_text("Who?\n\x07\n")
    with pytest.raises(DataError, match=r"q.txt:2: question holds the control character U\+0007") as caught:
        read_questions(text)
    assert caught.value.hint == f"fix the lines above, then run: memtune probe --file {text}"


@pytest.mark.parametrize(("command", "then"), [("memtune detect", ", then run: memtune detect {}"), ("", "")])
def test_what_comes_next_is_the_command_that_read_the_file(tmp_path: Path, command: str, then: str) -> None:
    path = jsonl(tmp_path, {"question": "q"})
    with pytest.raises(DataError) as caught:
        read_facts(path, command=command)
    assert caught.value.hint == f"fix the lines above{then.format(path)}"


def test_a_file_of_lines_is_never_held_as_objects(tmp_path: Path) -> None:
    path = jsonl(tmp_path, *({"id": i, "question": f"Who is number {i}?", "answer": f"{i} it is"} for i in range(1000)))
    read_facts(path)  # what is made once is not counted
    tracemalloc.start()
    try:
        read_facts(path)
        assert tracemalloc.get_traced_memory()[1] < 6 * path.stat().st_size  # as objects they take 20 times its size
    finally:
        tracemalloc.stop()
