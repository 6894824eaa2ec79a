"""JSON and YAML text to rows that know the line they begin on.

Every scalar that a format would turn into a number or a date keeps the spelling it has in the file.
A problem that leaves the rest of the file readable is yielded among the rows; one that does not is raised.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import yaml

from memtune.visible import show

__all__ = [
    "CHAT_KEYS",
    "PARAPHRASE_KEYS",
    "Header",
    "Items",
    "LineError",
    "Row",
    "json_rows",
    "jsonl_rows",
    "lines_of",
    "yaml_rows",
]

PARAPHRASE_KEYS = ("paraphrases", "rephrases", "rephrase")
CHAT_KEYS = ("messages", "conversations")
YAML_DEPTH = 64
TOO_DEEP = "the values are nested too deep to read"

# libyaml parses ten times faster. Only its events are used: its composer overflows the C stack on deep nesting.
_YAML_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_GAP = re.compile(r"[\s,:]*")


class LineError(Exception):
    """One problem of a file, at a line; line 0 is the file as a whole."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(line, problem)
        self.line = line
        self.problem = problem

    def at(self, name: str) -> str:
        """The problem with its place in the file of this name."""
        return f"{name}:{self.line}: {self.problem}" if self.line else f"{name}: {self.problem}"


@dataclass(frozen=True)
class Row:
    """One value of the file and the line it begins on."""

    line: int
    value: object


@dataclass(frozen=True)
class Header(Row):
    """The first record of a table: the names of its columns."""

    columns: tuple[str, ...] = ()


Items = Iterator[Row | LineError]


class _Located(list[object]):
    """A list that knows the line of each of its items."""

    def __init__(self, located: Iterable[tuple[int, object]]) -> None:
        pairs = list(located)
        super().__init__(value for _, value in pairs)
        self.lines = [line for line, _ in pairs]


def _repeated_key(line: int, key: str) -> LineError:
    return LineError(line, f"the key {show(key)} occurs twice in one object")


def _table(line: int, value: object) -> Items:
    """The rows of a document: its list, else the one list of objects in its top object, else the one value."""
    if isinstance(value, dict):
        tables = [key for key, item in value.items() if isinstance(item, _Located) and _is_table(key, item, value)]
        if len(tables) > 1:
            raise LineError(line, f"several lists of rows, keep one: {show(', '.join(tables))}")
        value = value[tables[0]] if tables else value
    return map(Row, value.lines, value) if isinstance(value, _Located) else iter([Row(line, value)])


def _is_table(key: str, items: _Located, parent: dict[str, object]) -> bool:
    """True of a list of objects that is no part of a single row."""
    if key in (*PARAPHRASE_KEYS, *CHAT_KEYS) or not all(isinstance(item, dict) for item in items):
        return False
    return bool(items) or len(parent) == 1


class _Decoder(json.JSONDecoder):
    """Numbers keep their spelling; ``repeated`` collects the keys that an object held twice."""

    def __init__(self) -> None:
        self.repeated: list[str] = []
        super().__init__(object_pairs_hook=self.to_object, parse_int=str, parse_float=str)

    def to_object(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        """The pairs as a dict."""
        result = dict(pairs)
        if len(result) < len(pairs):
            self.repeated += [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
        return result

    def checked(self, text: str, line: int) -> object:
        """The one value that the text holds; the text begins on this line of the file."""
        try:
            return self.decode(text)
        except json.JSONDecodeError as error:
            near = show(text[max(0, error.pos - 20) : error.pos + 20])
            place = f"column {error.colno}, near {near}"
            raise LineError(line + error.lineno - 1, f"bad JSON at {place}: {error.msg}") from error
        except RecursionError as error:
            raise LineError(line, TOO_DEEP) from error

    def faults(self, line: int) -> list[LineError]:
        """The keys repeated since the last call, as faults of this line."""
        found, self.repeated = self.repeated, []
        return [_repeated_key(line, key) for key in found]


def lines_of(text: str) -> Iterator[str]:
    """The lines, which end at a newline only: to splitlines() U+2028, which a text may hold, is a line end."""
    start = 0
    while (end := text.find("\n", start)) >= 0:
        yield text[start:end]
        start = end + 1
    yield text[start:]


def jsonl_rows(text: str) -> Items:
    """One row for each line that is not blank; a line that is no JSON is a fault, and the next is read."""
    decoder = _Decoder()
    for number, line in enumerate(lines_of(text), 1):
        if not line.strip():
            continue
        try:
            yield Row(number, decoder.checked(line, number))
        except LineError as fault:
            yield LineError(fault.line, fault.problem)  # what was caught holds its frames, and all faults are kept
        yield from decoder.faults(number)


def json_rows(text: str) -> Items:
    """The rows of one JSON value, or of JSON Lines in a file that does not say so."""
    first, _, rest = text.strip().partition("\n")
    if rest and first.startswith("{") and first.rstrip().endswith("}"):
        yield from jsonl_rows(text)
        return
    _Decoder().checked(text, 1)  # bad JSON ends here: the walk below meets none
    faults: list[LineError] = []
    yield from _table(*_locate(text, faults))
    yield from faults


def _locate(text: str, faults: list[LineError]) -> tuple[int, object]:
    """Line and value of valid JSON; the outer list, or each list of the outer object, knows the lines of its items."""
    decoder, line_of = _Decoder(), _line_finder(text)
    start = _after_gap(text, 0)

    def located(opening: int) -> Iterator[tuple[int, object]]:
        for at, value in _elements(text, opening, decoder):
            faults.extend(decoder.faults(line_of(at)))
            yield line_of(at), value

    if text[start] == "[":
        return line_of(start), _Located(located(start))
    if text[start] != "{":
        return line_of(start), decoder.raw_decode(text, start)[0]
    flat = list(_elements(text, start, decoder))
    decoder.repeated.clear()  # located() meets those of the lists again, and knows their lines
    values = [_Located(located(at)) if isinstance(value, list) else value for at, value in flat[1::2]]
    outer = decoder.to_object([(str(key), value) for (_, key), value in zip(flat[::2], values, strict=True)])
    faults.extend(decoder.faults(line_of(start)))
    return line_of(start), outer


def _elements(text: str, opening: int, decoder: _Decoder) -> Iterator[tuple[int, object]]:
    """Position and value of each item of the valid array opening there; of an object, each key and value in turn."""
    at = _after_gap(text, opening + 1)
    while text[at] not in "]}":
        value, end = decoder.raw_decode(text, at)
        yield at, value
        at = _after_gap(text, end)


def _after_gap(text: str, at: int) -> int:
    found = _GAP.match(text, at)
    return found.end() if found else at


def _line_finder(text: str) -> Callable[[int], int]:
    """A function from a position in the text to its line."""
    ends = [found.start() for found in re.finditer("\n", text)]
    return lambda at: bisect_left(ends, at) + 1


def yaml_rows(text: str) -> Items:
    """The rows of one YAML document. Nothing is resolved: ``no``, ``007`` and ``1e-4`` stay text."""
    faults: list[LineError] = []
    opened: list[tuple[int, list[tuple[int, object]]]] = [(1, [])]
    for line, event in _yaml_events(text):
        if isinstance(event, yaml.CollectionStartEvent):
            opened.append((line, []))
        elif isinstance(event, yaml.ScalarEvent):
            opened[-1][1].append((line, event.value))
        elif isinstance(event, yaml.CollectionEndEvent):
            begun, nodes = opened.pop()
            is_list = isinstance(event, yaml.SequenceEndEvent)
            opened[-1][1].append((begun, _Located(nodes) if is_list else _mapping(nodes, faults)))
        if len(opened) > YAML_DEPTH:
            raise LineError(line, TOO_DEEP)
    for line, value in opened[0][1]:
        yield from _table(line, value)
    yield from faults


def _mapping(nodes: list[tuple[int, object]], faults: list[LineError]) -> dict[str, object]:
    """The mapping whose keys and values alternate in ``nodes``."""
    result: dict[str, object] = {}
    for (line, key), (_, value) in zip(nodes[::2], nodes[1::2], strict=True):
        if not isinstance(key, str):
            faults.append(LineError(line, f"a key is not text: {show(key)}"))
        elif key in result:
            faults.append(_repeated_key(line, key))
        else:
            result[key] = value
    return result


def _yaml_events(text: str) -> Iterator[tuple[int, yaml.Event]]:
    """Each event with its line; what is no YAML, or no plain data, is raised."""
    if found := yaml.reader.Reader.NON_PRINTABLE.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise LineError(line, f"bad YAML: the character U+{ord(found.group()):04X} may not stand in it")
    documents = 0
    try:
        for event in yaml.parse(text, Loader=_YAML_LOADER):
            line = event.start_mark.line + 1 if event.start_mark else 0
            documents += isinstance(event, yaml.DocumentStartEvent)
            if documents > 1:
                raise LineError(line, "a second YAML document begins here, keep one")
            if isinstance(event, yaml.AliasEvent):
                raise LineError(line, f"aliases are not read, write the value out: {show(event.anchor)}")
            yield line, event
    except yaml.MarkedYAMLError as error:
        raise _bad_yaml(error) from error
    except (yaml.YAMLError, ValueError) as error:
        raise LineError(0, f"bad YAML: {show(str(error))}") from error


def _bad_yaml(error: yaml.MarkedYAMLError) -> LineError:
    mark = error.problem_mark or error.context_mark
    place, line = (f" at column {mark.column + 1}", mark.line + 1) if mark else ("", 0)
    return LineError(line, f"bad YAML{place}: {error.problem or error.context}")
