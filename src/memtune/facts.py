"""The file of facts that a user writes: read with every problem named in one pass."""

from __future__ import annotations

import hashlib
import unicodedata
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch

from memtune.errors import DataError
from memtune.fact import Fact, PackedFacts, facts_to_jsonl
from memtune.located import LineError
from memtune.readers import Document, read_rows
from memtune.rows import ANSWER_KEYS, QUESTION_KEYS, Fields, Keys, missing_keys, row_fields
from memtune.visible import show

__all__ = [
    "Asked",
    "Fact",
    "PackedFacts",
    "facts_to_jsonl",
    "fold_question",
    "one_fact",
    "read_asked",
    "read_facts",
    "read_questions",
]

ID_DIGITS = 10

Located = tuple[int, Fields]


@dataclass(frozen=True)
class Asked:
    """One row of a file of questions; what the row does not say is empty. ``place`` is FILE:line."""

    question: str
    answer: str
    id: str
    paraphrases: tuple[str, ...]
    place: str


def read_facts(
    path: str | Path, *, command: str = "", question_key: str | None = None, answer_key: str | None = None
) -> PackedFacts:
    """The facts of the file in its order (``-`` is standard input); a DataError names every problem in it.

    ``command`` comes next: what is run with the file again once they are mended.
    """
    keys = Keys(_names(question_key, QUESTION_KEYS), _names(answer_key, ANSWER_KEYS))
    document = read_rows(path, command=command)
    rows = _usable_rows(document, keys)
    facts = PackedFacts.pack(_fact(fields, f"{document.name}:{line}") for line, fields in rows)
    document.problems.extend(_clashes(_suspects(facts)))
    _raise_faults(document)
    return facts


def one_fact(question: str, answer: str, id: str | None = None, *, command: str) -> Fact:
    """A fact that stands in no file, checked like a row of one. Raises DataError with the help of ``command``."""
    problems: list[str] = []
    row = {"question": question, "answer": answer} | ({"id": id} if id else {})
    fields = row_fields(row, Keys(), problems)
    if problems:
        raise DataError(problems, hint=f"{command} --help")
    return _fact(fields, "command line")


def read_questions(path: str | Path) -> list[str]:
    """The questions of a fact file, or of a ``.txt`` file with one a line; answers are not needed."""
    document = read_rows(path, command="memtune probe --file", text_lines=True)
    rows = list(_usable_rows(document, Keys(answer=())))
    _raise_faults(document)
    return [fields.question for _, fields in rows]


def read_asked(path: str | Path, *, command: str) -> list[Asked]:
    """Questions to measure with, ``.txt`` one a line; a row may name its fact or its answer. ``command`` comes next."""
    document = read_rows(path, command=command, text_lines=True)
    rows = list(_usable_rows(document, Keys(needs_answer=False)))
    _raise_faults(document)
    return [Asked(f.question, f.answer, f.id, f.paraphrases, f"{document.name}:{line}") for line, f in rows]


def fold_question(question: str) -> str:
    """The question as compared for duplicates: case, white space and final punctuation do not count."""
    words = " ".join(unicodedata.normalize("NFC", question).casefold().split())
    return words.rstrip("?!. ") or words


def _names(key: str | None, default: tuple[str, ...]) -> tuple[str, ...]:
    return default if key is None else (key,)


def _usable_rows(document: Document, keys: Keys) -> Iterator[Located]:
    """The rows without problems, one by one; the problems of the others are added to the document."""
    rows = document.rows()
    first = next(rows, None)  # behind it the header is known
    if document.header and (absent := missing_keys(document.header.columns, keys)):
        document.problems += [LineError(document.header.line, problem) for problem in absent]
        for _ in rows:
            pass  # what cannot be read is named all the same
        return
    if first is None and not document.faults:
        document.problems.append(LineError(0, "holds no rows"))
    for row in chain([first] if first else [], rows):
        problems: list[str] = []
        fields = row_fields(row.value, keys, problems)
        document.problems += [LineError(row.line, problem) for problem in problems]
        if not problems:
            yield row.line, fields


def _fact(fields: Fields, source: str) -> Fact:
    """The fact; its id, if it has none, depends on its question alone, so the order of the file does not matter."""
    name = fields.id or f"f-{hashlib.sha256(fields.question.encode()).hexdigest()[:ID_DIGITS]}"
    return Fact(name, fields.question, fields.answer, fields.paraphrases, source)


def _suspects(facts: Sequence[Fact]) -> list[Fact]:
    """The facts that share a wording or an id with another one, in their order: no other fact can clash.

    Two hashes of eight bytes a fact are all that is held to find them.
    """
    hashes, numbers = array("q"), array("q")
    for number, fact in enumerate(facts):
        own = {hash(fold_question(text)) for text in fact.wordings} | {hash(("id", fact.id))}
        hashes.extend(own)
        numbers.extend([number] * len(own))
    if not hashes:
        return []
    found, order = torch.frombuffer(hashes, dtype=torch.int64).sort()
    again = found[1:] == found[:-1]
    shared = torch.cat([order[1:][again], order[:-1][again]])
    return [facts[number] for number in torch.frombuffer(numbers, dtype=torch.int64)[shared].unique().tolist()]


def _clashes(facts: Iterable[Fact]) -> Iterator[LineError]:
    """Every fact that repeats or contradicts one above it, or takes its id."""
    prompts: dict[str, tuple[int, Fact]] = {}
    questions: dict[str, tuple[int, Fact]] = {}
    ids: dict[str, tuple[int, Fact]] = {}
    for fact in facts:
        line = int(fact.source.rpartition(":")[2])
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
    for text in fact.wordings:
        first, other = prompts.setdefault(fold_question(text), (line, fact))
        if other.answer != fact.answer:
            answers = f"{show(fact.answer)} here, {show(other.answer)} there"
            found.setdefault(id(other), f"line {first} answers {show(text)} otherwise: {answers}")
    return found.values()


def _raise_faults(document: Document) -> None:
    """Nothing, or a DataError with the faults in the order of their lines. The rows were read before."""
    if document.faults or document.problems:
        faults = sorted([*document.faults, *document.problems], key=lambda fault: fault.line)
        then = f", then run: {document.again}" if document.again else ""
        raise DataError([fault.at(document.name) for fault in faults], hint=f"fix the lines above{then}")
