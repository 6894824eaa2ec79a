"""Tables that others keep are fact files too, read through the real library."""

from __future__ import annotations

import sys
from datetime import datetime

import pytest

from memtune.errors import DataError
from memtune.facts import read_facts
from memtune.tables import is_table

datasets = pytest.importorskip("datasets")

ROWS = [
    {"question": "Who keeps the key?", "answer": "Agnes.", "paraphrases": ["Whose is the key?"], "id": "key"},
    {"question": "How many bells are there?", "answer": "7", "paraphrases": None, "id": None},
]


@pytest.fixture
def table(tmp_path):
    return datasets.Dataset.from_list(ROWS)


def said(facts):
    return [(fact.question, fact.answer, fact.paraphrases) for fact in facts]


EXPECTED = [("Who keeps the key?", "Agnes.", ("Whose is the key?",)), ("How many bells are there?", "7", ())]


def test_a_parquet_file_is_a_fact_file(table, tmp_path):
    table.to_parquet(tmp_path / "facts.parquet")
    facts = read_facts(tmp_path / "facts.parquet")
    assert said(facts) == EXPECTED
    assert facts[0].id == "key" and facts[1].source.endswith("facts.parquet:2")


def test_a_directory_is_read_as_the_dataset_that_it_holds(table, tmp_path):
    (tmp_path / "mine").mkdir()
    table.to_parquet(tmp_path / "mine" / "train.parquet")
    assert said(read_facts(tmp_path / "mine")) == EXPECTED


def test_of_several_splits_one_is_named(table, tmp_path):
    for split in ("validation", "test"):
        table.to_parquet(tmp_path / f"{split}.parquet")
    with pytest.raises(DataError) as caught:
        read_facts(tmp_path)
    assert "validation" in str(caught.value) and "#" in caught.value.hint
    assert said(read_facts(f"{tmp_path}#test")) == EXPECTED


def test_lamini_files_are_read_as_they_are(tmp_path):
    rows = [{"input": row["question"], "output": row["answer"]} for row in ROWS]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "lamini.parquet")
    assert said(read_facts(tmp_path / "lamini.parquet")) == [(question, answer, ()) for question, answer, _ in EXPECTED]


def test_a_number_is_spelt(tmp_path):
    datasets.Dataset.from_list([{"question": "How many?", "answer": 7}]).to_parquet(tmp_path / "n.parquet")
    assert read_facts(tmp_path / "n.parquet")[0].answer == "7"


def test_a_missing_column_is_named(tmp_path):
    datasets.Dataset.from_list([{"question": "Who?", "anwser": "Ann."}]).to_parquet(tmp_path / "n.parquet")
    with pytest.raises(DataError, match="is 'anwser' meant as 'answer'"):
        read_facts(tmp_path / "n.parquet")


@pytest.mark.parametrize("content", [b"", b"PAR1 and then nothing of the kind"])
def test_a_file_that_is_no_parquet_says_so(tmp_path, content):
    (tmp_path / "n.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"n\.parquet"):
        read_facts(tmp_path / "n.parquet")


def test_a_directory_that_holds_no_dataset_says_so(tmp_path):
    with pytest.raises(DataError, match=r"data files|[Nn]o "):
        read_facts(tmp_path)


def test_an_id_that_cannot_be_had_says_so():
    with pytest.raises(DataError, match="nobody-knows/this-dataset") as caught:
        read_facts("nobody-knows/this-dataset")
    assert "org/name" in caught.value.hint


def test_without_the_library_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="needs the package datasets") as caught:
        read_facts(tmp_path / "n.parquet")
    assert "pip install 'datasets>=3'" in caught.value.hint


@pytest.mark.parametrize("name", ["facts.jsonl", "data/facts.jsonl", "-", "facts", "/abs/facts", "a/b/c", "a" * 5000])
def test_what_is_no_table_is_read_as_a_file(name):
    assert not is_table(name)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"\xff", r"lone surrogate U\+DCFF"),
        (float("nan"), "answer is NaN, not text"),
        (True, "answer is true, not text"),
        ([datetime(2026, 1, 1)], "answer is a list, not text"),
    ],
)
def test_what_no_text_file_could_say_is_refused(tmp_path, answer, problem):
    datasets.Dataset.from_list([{"question": "q", "answer": answer}]).to_parquet(tmp_path / "n.parquet")
    with pytest.raises(DataError, match=problem):
        read_facts(tmp_path / "n.parquet")


def test_bytes_that_are_text_are_read_as_text_and_numbers_in_a_list_are_spelt(tmp_path):
    row = {"question": b"q", "answer": "Zoë".encode(), "paraphrases": [7, 8]}
    datasets.Dataset.from_list([row]).to_parquet(tmp_path / "n.parquet")
    assert said(read_facts(tmp_path / "n.parquet")) == [("q", "Zoë", ("7", "8"))]


def test_a_table_that_is_damaged_further_down_says_so_and_nothing_else_does(table, tmp_path, capfd):
    path = tmp_path / "n.parquet"
    table.to_parquet(path)
    data = bytearray(path.read_bytes())
    data[4:40] = b"\x1b" * 36  # the head of the first page
    path.write_bytes(data)
    capfd.readouterr()
    with pytest.raises(DataError, match=r"n\.parquet:1: cannot be read from here on: ") as caught:
        read_facts(path)
    assert str(caught.value).isprintable()
    assert capfd.readouterr() == ("", "")
