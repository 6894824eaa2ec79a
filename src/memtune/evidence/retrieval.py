"""Retrieval: the facts in a full-text index (bm25), the best few put into the prompt of the untouched backbone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from memtune.asking import Turns, said_by
from memtune.evidence.search import FactSearch
from memtune.fact import Fact

__all__ = ["Notes", "Writer", "as_turns"]

Writer = Callable[[str, Sequence[Fact]], Turns]  # how notes, best first, stand in a conversation that asks a question


class Notes:
    """A full-text index over questions and answers. A note that shares no word with the question is never returned."""

    def __init__(self, facts: Sequence[Fact]) -> None:
        self.facts = facts
        self._search = FactSearch(facts)

    @property
    def bytes(self) -> int:
        return self._search.bytes

    def find(self, question: str, count: int) -> list[Fact]:
        """The best notes, best first."""
        return [self.facts[number] for number in self._search.find(question, count)]


def as_turns(question: str, notes: Sequence[Fact]) -> Turns:
    """The notes as earlier turns of the chat, best last: a small model repeats these better than it reads text."""
    pairs = [(fact.question, fact.answer) for fact in reversed(notes)]
    told = [said_by(role, text) for pair in pairs for role, text in zip(("user", "assistant"), pair, strict=True)]
    return [*told, said_by("user", question)]
