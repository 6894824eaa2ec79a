"""A fact, and any number of them packed as the lines of JSON that a project keeps."""

from __future__ import annotations

import hashlib
import json
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from memtune.errors import RESTORE, ProjectError
from memtune.numbered import Numbered
from memtune.visible import show

__all__ = ["Fact", "PackedFacts", "facts_to_jsonl"]


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
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    @property
    def wordings(self) -> tuple[str, ...]:
        """Everything that asks for the answer, the question first."""
        return (self.question, *self.paraphrases)


class PackedFacts(Numbered[Fact]):
    """Facts as UTF-8 lines of JSON; each is made when it is asked for.

    A line takes some 150 bytes, an object with its texts four times as many. ``name``: the file in a ProjectError.
    """

    def __init__(self, data: bytes | bytearray, name: str = "facts.jsonl") -> None:
        self.data, self.name = data, name
        self._starts = array("q", [0])  # and, as the last entry, the end
        while self._starts[-1] < len(data):
            self._starts.append(data.find(b"\n", self._starts[-1]) + 1 or len(data))

    @classmethod
    def pack(cls, facts: Iterable[Fact]) -> PackedFacts:
        data = bytearray()
        for fact in facts:
            data += _line(fact).encode()
        return cls(data)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def only(self, numbers: Iterable[int]) -> PackedFacts:
        """The facts with these numbers, in this order."""
        return PackedFacts(b"".join(self.data[self._starts[i] : self._starts[i + 1]] for i in numbers), self.name)

    def with_these(self, facts: Mapping[int, Fact]) -> PackedFacts:
        """The same, with these facts in place of those with their numbers."""
        lines = [self.data[start:end] for start, end in pairwise(self._starts)]
        for number, fact in facts.items():
            lines[number] = _line(fact).encode()
        return PackedFacts(b"".join(lines), self.name)

    def joined(self, other: PackedFacts) -> PackedFacts:
        return PackedFacts(self.data + other.data, self.name)

    def asked_as(self, text: str) -> bool:
        """Whether one of the facts is asked for with these very words. No fact is made but where they are found."""
        wanted = json.dumps(text, ensure_ascii=False).encode("utf-8", "surrogatepass")
        at = self.data.find(wanted)
        while at >= 0:
            number = bisect_right(self._starts, at) - 1
            if text in self[number].wordings:
                return True
            at = self.data.find(wanted, self._starts[number + 1])
        return False

    def _made(self, number: int) -> Fact:
        """Raises ProjectError if the line is none that ``pack`` wrote."""
        return _stored(self.data[self._starts[number] : self._starts[number + 1]], f"{self.name}:{number + 1}")


def facts_to_jsonl(facts: Iterable[Fact]) -> str:
    """One line of JSON for each fact, with every field."""
    return "".join(map(_line, facts))


def _line(fact: Fact) -> str:
    return f"{json.dumps(vars(fact), ensure_ascii=False)}\n"


def _stored(line: bytes | bytearray, place: str) -> Fact:
    try:
        values = json.loads(line)
        fact = Fact(**{**values, "paraphrases": tuple(values["paraphrases"])})
        texts = (fact.id, fact.question, fact.answer, fact.source, *fact.paraphrases)
        if isinstance(values["paraphrases"], list) and all(isinstance(text, str) for text in texts):
            return fact
    except (ValueError, TypeError, KeyError, RecursionError):
        pass  # one message for every kind of damage
    shown = show(line.decode("utf-8", "replace").rstrip("\n"))
    raise ProjectError(f"{place}: not a stored fact: {shown}", hint=RESTORE)
