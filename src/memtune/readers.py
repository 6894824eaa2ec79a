"""Bytes of a fact file to raw rows with their lines.

The format is known by the file's ending, else by its first characters. Nothing here knows what a question
is: a row is whatever value the format holds.
"""

from __future__ import annotations

import codecs
import csv
import re
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from memtune.errors import DataError
from memtune.located import (
    PARAPHRASE_KEYS,
    TOO_DEEP,
    Header,
    Items,
    LineError,
    Row,
    json_rows,
    jsonl_rows,
    lines_of,
    yaml_rows,
)
from memtune.tables import is_table, table_rows
from memtune.visible import show, spelt

__all__ = ["Document", "read_rows", "read_text"]

STDIN = "<stdin>"
ENDINGS = ".jsonl, .json, .csv, .tsv or .yaml"

_YAML_HEAD = re.compile(r"-\s|---|#|%YAML|[\w-]+:\s")
_CSV_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")  # an open file of the text would take four times its room
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_SHEETS = (".xlsx", ".xls")


class Document:
    """A file whose rows are read one by one: ``faults`` and ``header`` are whole when the last row was.

    ``faults``: every place where the file cannot be read. ``problems``: what its reader finds wrong with single rows.
    ``again``: the command that reads it once more, where the caller named one.
    """

    def __init__(self, name: str, items: Items, faults: list[LineError], again: str = "") -> None:
        self.name, self.faults, self.again = name, faults, again
        self.problems: list[LineError] = []
        self.header: Header | None = None
        self._items = items

    def rows(self) -> Iterator[Row]:
        """The rows that were not read yet, in their order."""
        try:
            for item in self._items:
                if isinstance(item, LineError):
                    self.faults.append(item)
                elif isinstance(item, Header):
                    self.header = item
                else:
                    yield item
        except LineError as fault:
            self.faults.append(fault)
        except RecursionError:
            self.faults.append(LineError(0, TOO_DEEP))


def read_rows(path: str | Path, *, command: str = "", text_lines: bool = False) -> Document:
    """Everything the file or table holds; with ``text_lines`` each line of a ``.txt`` file is a row of text.

    ``command`` comes next, with the file behind it, once what is wrong with the file is mended.
    """
    path = Path(path)
    name = _name_of(path)
    again = _again(command, path)
    if is_table(str(path)):
        return Document(name, table_rows(str(path)), [], again)
    faults: list[LineError] = []
    text = _decode(_read_bytes(path, name, command), faults)
    suffix = path.suffix.lower()
    reader = _text_rows if text_lines and suffix == ".txt" else _READERS.get(suffix, _sniffed_rows)
    return Document(name, reader(text), faults, again)


def read_text(path: str | Path) -> str:
    """The whole file as one text, whatever its name ends in; ``-`` is standard input. Raises DataError."""
    path = Path(path)
    name = _name_of(path)
    faults: list[LineError] = []
    try:
        text = _decode(_read_bytes(path, name), faults)
    except DataError as error:
        raise DataError(error.problems, hint="give a file of plain text in UTF-8") from error
    if faults:
        raise DataError([fault.at(name) for fault in faults])
    return text


def _name_of(path: Path) -> str:
    return STDIN if str(path) == "-" else spelt(path)


def _again(command: str, path: Path) -> str:
    return f"{command} {shlex.quote(str(path))}" if command else ""


def _read_bytes(path: Path, name: str, command: str = "") -> bytes:
    """The content of the file; a file that can hold no facts is a DataError that says what to do."""
    suffix = path.suffix.lower()
    if suffix in _SHEETS:
        again = _again(command, path.with_suffix(".csv"))
        hint = "save the sheet as CSV UTF-8" + (f", then: {again}" if again else "")
        raise DataError([f"{name}: {suffix} files are not read"], hint=hint)
    try:
        data = _stdin() if name == STDIN else path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError([f"{name}: {reason}"], hint=f"give a {ENDINGS} file") from error
    if data.startswith(_UTF16_MARKS):
        source, target = shlex.quote(name), shlex.quote(str(path.with_suffix(f".utf8{path.suffix}")))
        raise DataError([f"{name}: is UTF-16, not UTF-8"], hint=f"iconv -f UTF-16 -t UTF-8 {source} > {target}")
    if not data.strip():
        raise DataError([f"{name}: is empty"], hint=f"give a {ENDINGS} file with a question and an answer in each row")
    return data


def _stdin() -> bytes:
    stream = getattr(sys.stdin, "buffer", None)
    if stream is None:
        raise ValueError("standard input is closed")
    return bytes(stream.read())


def _decode(data: bytes, faults: list[LineError]) -> str:
    """The text; a line that is not UTF-8 becomes a fault, and the rest can still be checked."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        faults.extend(_undecodable(data))
    return data.decode("utf-8-sig", "replace")


def _undecodable(data: bytes) -> Iterator[LineError]:
    offset = 0
    for number, line in enumerate(data.split(b"\n"), 1):
        try:
            line.decode()
        except UnicodeDecodeError as error:
            place = f"byte 0x{line[error.start]:02x} at offset {offset + error.start}"
            yield LineError(number, f"{place} is not UTF-8 (Windows text? iconv -f WINDOWS-1252 -t UTF-8)")
        offset += len(line) + 1


def _sniffed_rows(text: str) -> Items:
    """The rows of a text whose format only its first characters tell."""
    head = text.lstrip()
    if head.startswith(("[", "{")):
        return json_rows(text)
    return yaml_rows(text) if _YAML_HEAD.match(head) else _csv_rows(text)


def _text_rows(text: str) -> Items:
    lines = lines_of(text.replace("\r\n", "\n"))
    return (Row(number, line) for number, line in enumerate(lines, 1) if line.strip())


def _csv_rows(text: str, delimiter: str = "") -> Items:
    """The header, then a row for each record that has as many cells; blank records are left out."""
    if not delimiter:
        head = text.lstrip().partition("\n")[0]
        delimiter = max(",;\t", key=head.count)
    records = _csv_records(text, delimiter)
    line, names = next(records, (1, []))
    names = [name.strip() for name in names]
    yield Header(line, names, tuple(names))
    for name in sorted(name for name, count in Counter(names).items() if name and count > 1):
        yield LineError(line, f"the column {show(name)} occurs twice in the header")
    for line, cells in records:
        if len(cells) == len(names):
            yield Row(line, {name: _cell(name, cell) for name, cell in zip(names, cells, strict=True)})
        else:
            advice = "; quote a cell that holds the delimiter" if len(cells) > len(names) else ""
            yield LineError(line, f"the row has {len(cells)} cells, the header {len(names)}{advice}: {show(cells)}")


def _csv_records(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The records that are not blank, each with the line it begins on."""
    ended = (found.group() for found in _CSV_LINE.finditer(text))
    reader = csv.reader(ended, delimiter=delimiter, strict=True)
    line = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        message = str(error).replace("\t", "\\t")  # it names the delimiter as it is
        reason = "a quote that opens here is never closed" if "end of data" in message else message
        raise LineError(line, f"bad CSV: {reason}; the rows below it were not read") from error


def _cell(column: str, cell: str) -> str | list[str]:
    """The cell; the paraphrases in one cell are parted by ``|``."""
    return [part for part in cell.split("|") if part.strip()] if column.lower() in PARAPHRASE_KEYS else cell


_READERS: dict[str, Callable[[str], Items]] = {
    ".jsonl": jsonl_rows,
    ".ndjson": jsonl_rows,
    ".json": json_rows,
    ".csv": _csv_rows,
    ".tsv": partial(_csv_rows, delimiter="\t"),
    ".yaml": yaml_rows,
    ".yml": yaml_rows,
}
