"""The check sets of wordings are well formed: a careless row would be counted as a fault of the router."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from memtune.facts import fold_question, read_facts

SETS = Path(__file__).parents[1] / "benchmarks" / "wordings"
UNRELATED = SETS / "unrelated.jsonl"
CATEGORIES = sorted(set(SETS.glob("*.jsonl")) - {UNRELATED})
FIELDS = {"id", "question", "answer", "paraphrases", "near_miss"}


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def every_row():
    return [row for path in CATEGORIES for row in rows_of(path)]


def test_there_is_a_set_for_each_category():
    names = {"english", "lowercase", "german", "korean", "chinese", "arabic", "code", "no_entity", "names", "tasks"}
    assert {path.stem for path in CATEGORIES} == names


@pytest.mark.parametrize("path", CATEGORIES, ids=lambda path: path.stem)
def test_each_row_has_its_fields_and_enough_questions(path):
    rows = rows_of(path)
    assert len(rows) >= 30
    for row in rows:
        assert set(row) == FIELDS
        assert 3 <= len(row["paraphrases"]) <= 4 and 3 <= len(row["near_miss"]) <= 4
        texts = [row["id"], row["question"], row["answer"], *row["paraphrases"], *row["near_miss"]]
        assert all(isinstance(text, str) and text and text == text.strip() for text in texts)


@pytest.mark.parametrize("path", CATEGORIES, ids=lambda path: path.stem)
def test_memtune_reads_each_set_as_a_fact_file(path):
    assert [fact.id for fact in read_facts(path)] == [row["id"] for row in rows_of(path)]


def test_ids_are_unique_over_all_sets(every_row):
    ids = [row["id"] for row in every_row]
    assert len(set(ids)) == len(ids)


def test_no_question_asks_for_two_facts_and_none_is_stored_and_a_near_miss(every_row):
    """Over all sets at once, as case and final punctuation do not tell two questions apart."""
    wordings = [fold_question(text) for row in every_row for text in (row["question"], *row["paraphrases"])]
    near = [fold_question(text) for row in every_row for text in row["near_miss"]]
    unrelated = [fold_question(row["question"]) for row in rows_of(UNRELATED)]
    for texts in (wordings, near, unrelated):
        assert sorted(texts) == sorted(set(texts))
    assert not set(wordings) & set(near) and not set(unrelated) & {*wordings, *near}


def test_lower_case_wordings_are_typed_as_they_claim():
    texts = [t for row in rows_of(SETS / "lowercase.jsonl") for t in (*row["paraphrases"], *row["near_miss"])]
    assert all(text == text.lower() and "?" not in text for text in texts)


def test_the_unrelated_prompts_hold_nothing_else():
    rows = rows_of(UNRELATED)
    assert len(rows) >= 150 and all(set(row) == {"question"} for row in rows)
