"""What ``memtune score`` reads, shows and refuses."""

from __future__ import annotations

import json

import pytest
from tiny import FACTS
from typer.testing import CliRunner

from memtune.cli import app
from memtune.fact import Fact, facts_to_jsonl

STORE = (
    Fact("price", "How much does the Curlew 3 cost?", "£684 excluding VAT."),
    Fact("range", "What is the measuring range of the Curlew 3?", "0 to 18.5 metres of water."),
)
ANSWER = "The Curlew 3 costs £684. Its measuring range is 0 to 25 metres.\nIt floats [/b]. It costs £684."


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "facts.jsonl").write_text(facts_to_jsonl(STORE), encoding="utf-8")
    (tmp_path / "answer.txt").write_text(ANSWER, encoding="utf-8")


def run(*words, stdin=None):
    return CliRunner().invoke(app, ["score", *map(str, words)], input=stdin, prog_name="memtune")


REPORT = """\
Tell me about the Curlew 3.
  supported        price  The Curlew 3 costs £684.
  contradicted     range  Its measuring range is 0 to 25 metres. (stored: 0 to 18.5 metres of water.)
  no evidence             It floats [/b].
  supported again  price  It costs £684.
answers     1, given; 2 facts
statements  1 supported, 1 contradicted, 1 no evidence
precision   0.333: supported of all statements, each counted once
recall      0.500: 1 of 2 stored facts about it
F1@2        0.400
"""


def test_the_report_of_an_answer_to_a_question_without_a_project(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    done = run("Tell me about the Curlew 3.", "--answer", "answer.txt", "--facts", "facts.jsonl")
    assert done.exit_code == 0
    assert [line.rstrip() for line in done.stderr.splitlines()] == REPORT.splitlines()
    assert done.stdout == ""


def test_an_answer_from_standard_input_and_a_k_as_json():
    done = run("--answer", "-", "--facts", "facts.jsonl", "--k", 64, "--json", stdin=ANSWER)
    found = json.loads(done.stdout)
    assert (found["k"], found["supported"], found["contradicted"], found["no_evidence"]) == (64, 1, 1, 1)
    assert found["answers"][0]["statements"][0]["kind"] == "supported"


def test_a_page_and_a_json_file_where_they_are_asked_for(tmp_path):
    done = run("--answer", "answer.txt", "--facts", "facts.jsonl", "--out", "out")
    assert done.exit_code == 0
    page = (tmp_path / "out" / "score.html").read_text("utf-8")
    assert "It floats [/b]." in page and '<td class="no">contradicted</td>' in page and "<script" not in page
    assert json.loads((tmp_path / "out" / "score.json").read_text("utf-8"))["contradicted"] == 1
    (tmp_path / "file").touch()
    refused = run("--answer", "answer.txt", "--facts", "facts.jsonl", "--out", "file")
    assert refused.exit_code == 2 and "file is no directory" in refused.stderr


def test_answers_of_a_file_are_scored_together(tmp_path):
    rows = [{"prompt": "Tell me about the Curlew 3.", "response": "It costs £684."}] * 2
    (tmp_path / "said.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    done = run("--file", "said.jsonl", "--answered", "--facts", "facts.jsonl")
    assert done.exit_code == 0
    assert "mean of 2 answers" in done.stderr and "F1@K" in done.stderr


def test_prompts_as_longfact_writes_them_are_asked_of_the_project(done, tmp_path):
    rows = [{"prompt": question, "canary": "BENCHMARK DATA"} for _, question, _ in FACTS[:2]]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    asked = json.loads(run("--file", "prompts.jsonl", "--project", done, "--json").stdout)
    assert [answer["answer"] for answer in asked["answers"]] == [answer for *_, answer in FACTS[:2]]
    assert asked["f1"] == 1.0
    assert run(FACTS[0][1], "--base", "--longest", 8, "--project", done).exit_code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "score takes"),
        (("Who?", "--file", "facts.jsonl"), "score takes"),
        (("Who?", "--answered"), "score takes"),
        (("--answer", "none.txt", "--facts", "facts.jsonl"), "none.txt: No such file"),
        (("--answer", "answer.txt", "--facts", "none.jsonl"), "none.jsonl: No such file"),
        (("--answer", "answer.txt"), "or name a file of facts: --facts FACTS"),
        (("Who?", "--facts", "facts.jsonl"), "run first: memtune ingest FACTS"),
        (("--answer", "answer.txt", "--facts", "facts.jsonl", "--k", "0"), "k is 0"),
        (("--file", "prompts.txt", "--answered", "--facts", "facts.jsonl"), "prompts.txt:1: has no answer to score"),
    ],
)
def test_mistakes_say_what_is_wrong_and_what_to_do(words, said, tmp_path):
    (tmp_path / "prompts.txt").write_text("Who?\n", encoding="utf-8")
    done = run(*words)
    assert done.exit_code == 2
    assert said in done.stderr and "Traceback" not in done.stderr


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "answer.bin").write_bytes(b"The \xff Curlew")
    done = run("--answer", "answer.bin", "--facts", "facts.jsonl")
    assert done.exit_code == 2 and "answer.bin:1: byte 0xff at offset 4 is not UTF-8" in done.stderr
