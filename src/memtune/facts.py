"""A fact, and the file of facts that a user writes: read with every problem named in one pass."""

from __future__ import annotations

import hashlib
import json
import shlex
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from memtune.errors import DataError, ProjectError
from memtune.located import LineError, show
from memtune.readers import Document, read_rows
from memtune.rows import ANSWER_KEYS, QUESTION_KEYS, Fields, Keys, missing_keys, row_fields

__all__ = [
    "Asked",
    "Fact",
    "facts_from_jsonl",
    "facts_to_jsonl",
    "fold_question",
    "read_asked",
    "read_facts",
    "read_questions",
]

ID_DIGITS = 10

Located = tuple[int, Fields]


@dataclass(frozen=True)
class Fact:
    """One question, its exact answer, and other wordings of the question."""

    id: str
    question: str
    answer: str
    paraphrases: tuple[str, ...] = ()
    source: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of everything that is taught: equal for two facts that differ only in where they were read."""
        content = {"id": self.id, "question": self.question, "answer": self.answer, "paraphrases": self.paraphrases}
        return _sha256(json.dumps(content, sort_keys=True, separators=(",", ":")))


@dataclass(frozen=True)
class Asked:
    """One row of a file of questions; what the row does not say is empty. ``place`` is FILE:line."""

    question: str
    answer: str
    id: str
    paraphrases: tuple[str, ...]
    place: str


def read_facts(path: str | Path, *, question_key: str | None = None, answer_key: str | None = None) -> list[Fact]:
    """The facts of the file in its order (``-`` is standard input); a DataError names every problem in it."""
    keys = Keys(_names(question_key, QUESTION_KEYS), _names(answer_key, ANSWER_KEYS))
    document = read_rows(path)
    rows = _usable_rows(document, keys)
    facts = [(line, _fact(fields, f"{document.name}:{line}")) for line, fields in rows]
    document.faults.extend(_clashes(facts))
    _raise_faults(document, f"memtune ingest {shlex.quote(str(path))}")
    return [fact for _, fact in facts]


def read_questions(path: str | Path, *, question_key: str | None = None) -> list[str]:
    """The questions of a fact file, or of a ``.txt`` file with one a line; answers are not needed."""
    document = read_rows(path, text_lines=True)
    rows = _usable_rows(document, Keys(_names(question_key, QUESTION_KEYS), ()))
    _raise_faults(document, f"memtune probe --file {shlex.quote(str(path))}")
    return [fields.question for _, fields in rows]


def read_asked(path: str | Path, *, command: str) -> list[Asked]:
    """Questions to measure with, ``.txt`` one a line; a row may name its fact or its answer. ``command`` comes next."""
    document = read_rows(path, text_lines=True)
    rows = _usable_rows(document, Keys(needs_answer=False))
    _raise_faults(document, f"{command} {shlex.quote(str(path))}")
    return [Asked(f.question, f.answer, f.id, f.paraphrases, f"{document.name}:{line}") for line, f in rows]


def facts_to_jsonl(facts: Iterable[Fact]) -> str:
    """One line of JSON for each fact, with every field."""
    return "".join(f"{json.dumps(vars(fact), ensure_ascii=False)}\n" for fact in facts)


def facts_from_jsonl(text: str, *, name: str = "facts.jsonl") -> list[Fact]:
    """The facts that ``facts_to_jsonl`` wrote, equal to them; ``name`` is the file in a ProjectError."""
    # Not splitlines(): an answer may hold U+2028, which is a line end to it.
    return [_stored(line, f"{name}:{number}") for number, line in enumerate(text.split("\n"), 1) if line]


def fold_question(question: str) -> str:
    """The question as compared for duplicates: case, white space and final punctuation do not count."""
    words = " ".join(unicodedata.normalize("NFC", question).casefold().split())
    return words.rstrip("?!. ") or words


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _names(key: str | None, default: tuple[str, ...]) -> tuple[str, ...]:
    return default if key is None else (key,)


def _stored(line: str, place: str) -> Fact:
    try:
        values = json.loads(line)
        fact = Fact(**{**values, "paraphrases": tuple(values["paraphrases"])})
        texts = (fact.id, fact.question, fact.answer, fact.source, *fact.paraphrases)
        if isinstance(values["paraphrases"], list) and all(isinstance(text, str) for text in texts):
            return fact
    except (ValueError, TypeError, KeyError, RecursionError):
        pass  # one message for every kind of damage
    raise ProjectError(f"{place}: not a stored fact: {show(line)}", hint="run memtune ingest again with the facts")


def _usable_rows(document: Document, keys: Keys) -> list[Located]:
    """The rows without problems; the problems of the others become faults of the document."""
    if document.header and (absent := missing_keys(document.header.columns, keys)):
        document.faults += [LineError(document.header.line, problem) for problem in absent]
        return []
    if not document.rows and not document.faults:
        document.faults.append(LineError(0, "holds no rows"))
    usable = []
    for row in document.rows:
        problems: list[str] = []
        fields = row_fields(row.value, keys, problems)
        document.faults += [LineError(row.line, problem) for problem in problems]
        if not problems:
            usable.append((row.line, fields))
    return usable


def _fact(fields: Fields, source: str) -> Fact:
    """The fact; its id, if it has none, depends on its question alone, so the order of the file does not matter."""
    name = fields.id or f"f-{_sha256(fields.question)[:ID_DIGITS]}"
    return Fact(name, fields.question, fields.answer, fields.paraphrases, source)


def _clashes(facts: Sequence[tuple[int, Fact]]) -> Iterator[LineError]:
    """Every fact that repeats or contradicts one above it, or takes its id."""
    prompts: dict[str, tuple[int, Fact]] = {}
    questions: dict[str, tuple[int, Fact]] = {}
    ids: dict[str, tuple[int, Fact]] = {}
    for line, fact in facts:
        yield from (LineError(line, problem) for problem in _contradictions(line, fact, prompts))
        first, other = questions.setdefault(fold_question(fact.question), (line, fact))
        if other is not fact and other.answer == fact.answer:
            yield LineError(line, f"the same question and answer as on line {first}: {show(fact.question)}")
        first, other = ids.setdefault(fact.id, (line, fact))
        if other.question != fact.question:
            yield LineError(line, f"the id {show(fact.id)} is also that of line {first}")


def _contradictions(line: int, fact: Fact, prompts: dict[str, tuple[int, Fact]]) -> Iterable[str]:
    """One problem for each fact in ``prompts`` that answers a wording of this fact otherwise; adds its wordings."""
    found: dict[int, str] = {}
    for text in (fact.question, *fact.paraphrases):
        first, other = prompts.setdefault(fold_question(text), (line, fact))
        if other.answer != fact.answer:
            answers = f"{show(fact.answer)} here, {show(other.answer)} there"
            found.setdefault(id(other), f"line {first} answers {show(text)} otherwise: {answers}")
    return found.values()


def _raise_faults(document: Document, command: str) -> None:
    """Nothing, or a DataError with the faults in the order of their lines."""
    if document.faults:
        faults = sorted(document.faults, key=lambda fault: fault.line)
        raise DataError([fault.at(document.name) for fault in faults], hint=f"fix the lines above, then run: {command}")
