"""Every format gives the same rows, each with its line, and whatever cannot be read is named."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from memtune.errors import DataError
from memtune.located import LineError, Row
from memtune.readers import read_rows

ROWS: list[object] = [{"question": "Who?", "answer": "Ann"}, {"question": "When?", "answer": "1987"}]
JSONL = '{"question": "Who?", "answer": "Ann"}\n{"question": "When?", "answer": 1987}\n'
ARRAY = '[\n  {"question": "Who?", "answer": "Ann"},\n  {"question": "When?", "answer": 1987}\n]\n'
WRAPPED = (
    '{"version": 2,\n "data": [\n  {"question": "Who?", "answer": "Ann"},\n\n{"question": "When?", "answer": 1987}]}'
)
CSV = "question,answer\nWho?,Ann\nWhen?,1987\n"
YAML = "# facts\n- question: Who?\n  answer: Ann\n- question: When?\n  answer: 1987\n"

FORMATS = [
    ("facts.jsonl", JSONL, [1, 2]),
    ("facts.ndjson", JSONL, [1, 2]),
    ("facts.jsonl", JSONL.replace("\n", "\r\n"), [1, 2]),
    ("facts.json", ARRAY, [2, 3]),
    ("facts.json", WRAPPED, [3, 5]),
    ("facts.json", JSONL, [1, 2]),
    ("facts.csv", CSV, [2, 3]),
    ("facts.csv", CSV.replace(",", ";"), [2, 3]),
    ("facts.tsv", CSV.replace(",", "\t"), [2, 3]),
    ("facts.yaml", YAML, [2, 4]),
    ("facts.yml", "data:\n" + YAML, [3, 5]),
]


class Whole(NamedTuple):
    """All that a file holds."""

    name: str
    rows: list[Row]
    faults: list[LineError]


def whole(path: Path | str) -> Whole:
    document = read_rows(path)
    return Whole(document.name, list(document.rows()), document.faults)


def document(folder: Path, name: str, content: str | bytes) -> Whole:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return whole(path)


def faults(folder: Path, name: str, content: str | bytes) -> list[tuple[int, str]]:
    return [(fault.line, fault.problem) for fault in document(folder, name, content).faults]


@pytest.mark.parametrize(("name", "content", "lines"), FORMATS)
def test_every_format_gives_the_same_rows_with_their_lines(
    tmp_path: Path, name: str, content: str, lines: list[int]
) -> None:
    found = document(tmp_path, name, content)
    assert ([row.value for row in found.rows], [row.line for row in found.rows], found.faults) == (ROWS, lines, [])


@pytest.mark.parametrize(("_name", "content", "lines"), FORMATS)
def test_an_unknown_ending_and_standard_input_are_read_by_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _name: str, content: str, lines: list[int]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    for found in (document(tmp_path, "facts", content), whole("-")):
        assert ([row.value for row in found.rows], [row.line for row in found.rows]) == (ROWS, lines)
    assert found.name == "<stdin>"


def test_closed_standard_input_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(DataError, match="<stdin>: standard input is closed"):
        read_rows("-")


@pytest.mark.parametrize("spelling", ["1e-4", "7.10", "12345678901234567890123", "-0"])
def test_a_json_number_keeps_its_spelling(tmp_path: Path, spelling: str) -> None:
    assert document(tmp_path, "f.jsonl", f'{{"a": {spelling}}}').rows[0].value == {"a": spelling}


@pytest.mark.parametrize("spelling", ["no", "007", "1e-4", "2020-01-01", "~", "0x1F", "!!python/none x"])
def test_a_yaml_scalar_keeps_its_spelling(tmp_path: Path, spelling: str) -> None:
    assert document(tmp_path, "f.yaml", f"- a: {spelling}").rows[0].value == {"a": spelling.split()[-1]}


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    assert [row.value for row in document(tmp_path, "f.csv", b"\xef\xbb\xbf" + CSV.encode()).rows] == ROWS


def test_a_line_ends_only_at_a_newline(tmp_path: Path) -> None:
    rows = document(tmp_path, "f.jsonl", '"a\u2028b"\n"c\u0085d"\n').rows
    assert [(row.line, row.value) for row in rows] == [(1, "a\u2028b"), (2, "c\u0085d")]


def test_a_csv_row_begins_on_the_line_of_its_first_cell(tmp_path: Path) -> None:
    found = document(tmp_path, "f.csv", 'question,answer\n\n,,\n"a\nb",x\nc,"say ""hi"""\n')
    assert found.faults == []
    assert [(row.line, row.value) for row in found.rows] == [
        (4, {"question": "a\nb", "answer": "x"}),
        (6, {"question": "c", "answer": 'say "hi"'}),
    ]


def test_paraphrases_in_one_csv_cell_are_parted_by_bars(tmp_path: Path) -> None:
    found = document(tmp_path, "f.csv", "question, answer ,rephrases \nq,a|b,x|y | \nr,c,\n")
    assert [row.value for row in found.rows] == [
        {"question": "q", "answer": "a|b", "rephrases": ["x", "y "]},
        {"question": "r", "answer": "c", "rephrases": []},
    ]


def test_lists_that_belong_to_a_row_are_not_taken_for_the_rows(tmp_path: Path) -> None:
    row = {"question": "q", "answer": "a", "paraphrases": [], "tags": ["t"], "notes": [], "messages": [{}]}
    assert [found.value for found in document(tmp_path, "f.json", json.dumps(row)).rows] == [row]


def test_bad_json_lines_are_all_named_and_the_others_are_read(tmp_path: Path) -> None:
    found = document(tmp_path, "f.JSONL", 'text\n{"a": 1}\n{"a" 1}\n')
    assert [fault.line for fault in found.faults] == [1, 3]
    assert [row.line for row in found.rows] == [2]


@pytest.mark.parametrize(
    ("name", "content", "line", "problem"),
    [
        ("f.jsonl", '\n{"a" 1}', 2, "bad JSON at column 6, near '{\"a\" 1}': Expecting ':' delimiter"),
        ("f.json", '[\n{"a": 1},\n]', 3, "bad JSON at column 1, near '[\\n{\"a\": 1},\\n]': Expecting value"),
        ("f.json", "[] []", 1, "bad JSON at column 4, near '[] []': Extra data"),
        ("f.json", '[{},\n{"a": {"b": 1, "b": 2}}]', 2, "the key 'b' occurs twice in one object"),
        ("f.json", '{"a": 1, "a": 2}', 1, "the key 'a' occurs twice in one object"),
        ("f.json", '{"train": [{}], "test": [{}]}', 1, "several lists of rows, keep one: 'train, test'"),
        ("f.json", "[" * 100_000, 1, "the values are nested too deep to read"),
        ("f.jsonl", '{}\n{"a":' + "[" * 100_000, 2, "the values are nested too deep to read"),
        ("f.yaml", "- a: 1\n  b: 2\n  a: 3", 3, "the key 'a' occurs twice in one object"),
        ("f.yaml", "- ? [x]\n  : y", 1, "a key is not text: ['x']"),
        ("f.yaml", "- &x a\n- *x", 2, "aliases are not read, write the value out: 'x'"),
        ("f.yaml", "- a\n---\n- b", 2, "a second YAML document begins here, keep one"),
        ("f.yaml", "- a: é\n- b: \x07", 2, "bad YAML: the character U+0007 may not stand in it"),
        ("f.yaml", "[" * 100_000, 1, "the values are nested too deep to read"),
        ("f.csv", "a,b\nx", 2, "the row has 1 cells, the header 2: ['x']"),
        (
            "f.csv",
            "a,b\n\nx,y,z",
            3,
            "the row has 3 cells, the header 2; quote a cell that holds the delimiter: ['x', 'y', 'z']",
        ),
        ("f.csv", "a,a\nx,y", 1, "the column 'a' occurs twice in the header"),
        (
            "f.csv",
            'a,b\nx,y\nx,"y\nz,z\n',
            3,
            "bad CSV: a quote that opens here is never closed; the rows below it were not read",
        ),
        ("f.csv", 'a,b\nx,"y"z\n', 2, "bad CSV: ',' expected after '\"'; the rows below it were not read"),
        (
            "f.csv",
            f"a,b\nx,{'y' * 140_000}\n",
            2,
            "bad CSV: field larger than field limit (131072); the rows below it were not read",
        ),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(
    tmp_path: Path, name: str, content: str, line: int, problem: str
) -> None:
    assert (line, problem) in faults(tmp_path, name, content)


def test_a_repeated_key_is_named_once(tmp_path: Path) -> None:
    found = sorted(faults(tmp_path, "f.json", '{"a": [{}],\n"a": [{"b": 1, "b": 2}]}'))
    assert found == [(1, "the key 'a' occurs twice in one object"), (2, "the key 'b' occurs twice in one object")]


def test_the_yaml_parser_without_libyaml_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memtune.located._YAML_LOADER", yaml.BaseLoader)
    assert [row.value for row in document(tmp_path, "f.yaml", YAML).rows] == ROWS
    assert [problem[:8] for _, problem in faults(tmp_path, "f.yaml", '- "\\U00110000"')] == ["bad YAML"]


def test_bad_yaml_is_named_with_its_line_and_column(tmp_path: Path) -> None:
    [(line, problem)] = faults(tmp_path, "f.yaml", "- a: 1\n- b: 2\n c: 3\n")
    assert (line, problem.partition(":")[0]) == (3, "bad YAML at column 2")


def test_json_at_the_very_limit_of_nesting_is_read_or_named(tmp_path: Path) -> None:
    depths = range(sys.getrecursionlimit() - 200, sys.getrecursionlimit() + 1)
    found = [document(tmp_path, "f.json", f'{{"data": [{{"a": {"[" * depth}{"]" * depth}}}]}}') for depth in depths]
    assert all(bool(each.rows) != bool(each.faults) for each in found)


def test_yaml_that_would_expand_without_end_is_refused_at_once(tmp_path: Path) -> None:
    bomb = "- &a0 [x]\n" + "".join(f"- &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
    assert [line for line, _ in faults(tmp_path, "f.yaml", bomb)] == [2]


def test_every_line_that_is_not_utf8_is_named_with_its_offset(tmp_path: Path) -> None:
    found = faults(tmp_path, "f.jsonl", b'{"a": "caf\xe9"}\n{}\n"\xff"')
    assert [(line, problem.partition(" is ")[0]) for line, problem in found] == [
        (1, "byte 0xe9 at offset 10"),
        (3, "byte 0xff at offset 18"),
    ]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_is_named_with_the_command_that_converts_it(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes(("\ufeff" + CSV).encode(encoding))
    with pytest.raises(DataError, match="is UTF-16, not UTF-8") as caught:
        read_rows(path)
    assert caught.value.hint == f"iconv -f UTF-16 -t UTF-8 {path} > {tmp_path / 'f.utf8.csv'}"


@pytest.mark.parametrize(("name", "convert"), [("f.xlsx", "CSV"), ("f.XLS", "CSV")])
def test_a_format_that_is_not_read_comes_with_a_way_to_convert_it(tmp_path: Path, name: str, convert: str) -> None:
    with pytest.raises(DataError, match="files are not read") as caught:
        document(tmp_path, name, b"PAR1")
    assert convert in caught.value.hint


def test_a_file_that_holds_nothing_or_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"blank.csv: is empty"):
        document(tmp_path, "blank.csv", " \n")
    with pytest.raises(DataError, match=r"missing.csv: No such file or directory"):
        read_rows(tmp_path / "missing.csv")
    with pytest.raises(DataError, match="null byte"):
        read_rows("a\0b")


def test_a_fault_holds_no_frames(tmp_path: Path) -> None:
    """All faults are kept: with the frames of their making, a large file that is no JSON would fill the memory."""
    for fault in document(tmp_path, "f.jsonl", "x\n" * 3).faults:
        assert fault.__traceback__ is None and fault.__cause__ is None and fault.__context__ is None


def test_a_name_that_no_file_can_have_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="File name too long"):
        read_rows(tmp_path / ("x" * 300))
