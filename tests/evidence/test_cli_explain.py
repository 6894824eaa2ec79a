"""probe --explain and detect on the command line: the answer on stdout, the rest beside it, mistakes first."""

from __future__ import annotations

import json

import pytest
from tiny import FACTS
from typer.testing import CliRunner

from memtune.cli import app

QUESTION, ANSWER = FACTS[0][1:]


@pytest.fixture
def run(tuned):
    def run(*words):
        return CliRunner().invoke(app, [*words, "--project", str(tuned)])

    return run


def test_the_answer_is_on_stdout_and_the_explanation_beside_it(run, tmp_path):
    page = tmp_path / "why.html"
    result = run("probe", QUESTION, "--explain", "--trace", "--stride", "4", "--html", str(page))
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{ANSWER}\n"
    for words in ("gold", "Kirkby Strand", "layer", "entropy", "bit for bit the same", "total effect", "trace"):
        assert words in " ".join(result.stderr.split())
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_with_json_all_of_it_is_one_object(run):
    result = run("probe", "What is the capital of France?", "--explain", "--answer", "Paris", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["gold"] == {"answer": "Paris", "source": "as given"}
    assert found["probed"]["answer"] and found["memory"] is None and found["trace"] is None
    assert list(found["start"]["gold"]["enters"]) == ["100", "10", "1"]
    assert len(found["start"]["entropy"]) == found["layers"] + 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--answer", "x"), "--answer belongs to --explain"),
        (("--trace",), "--trace belongs to --explain"),
        (("--html", "x.html"), "--html belongs to --explain"),
        (("--explain", "--stride", "2"), "--stride belongs to --trace"),
        (("--explain", "--trace", "--stride", "0"), "--stride is 0"),
        (("--explain", "--html", "no/such/x.html"), "is no directory"),
        (("--explain", "--answer", " "), "the gold answer is empty"),
    ],
)
def test_a_mistake_is_told_before_any_work(run, words, said, monkeypatch):
    monkeypatch.setattr("memtune.store.load_backbone", None)
    result = run("probe", QUESTION, *words)
    assert result.exit_code == 2
    assert said in result.stderr and "hint:" in result.stderr and result.stdout == ""


def test_a_file_of_questions_is_not_explained(run, facts_file):
    result = run("probe", "--file", str(facts_file), "--explain")
    assert result.exit_code == 2 and "--explain takes one question" in result.stderr


def test_detect_says_what_is_missing(run, facts_file):
    result = run("detect", str(facts_file))
    assert result.exit_code == 2
    assert "0 of 6 replies are right: a detector needs 5 or more of each kind" in result.stderr
