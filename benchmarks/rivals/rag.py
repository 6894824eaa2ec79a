"""Retrieval: the facts in SQLite's full-text index, the best few (bm25) quoted in the prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from memtune.asking import greedy
from memtune.backbone import Backbone
from memtune.evidence.search import FactSearch
from memtune.evidence.training import Goal
from memtune.facts import Fact

from .base import Reply, plain_prompts

PROMPT = """\
{question}

Use these notes and answer with the note's answer exactly:
{notes}"""  # the best of four wordings, tried on other facts


class Notes:
    """A full-text index over questions and answers. A note that shares no word with the question is never returned."""

    def __init__(self, facts: Sequence[Fact]) -> None:
        self.facts = list(facts)
        self._search = FactSearch(self.facts)

    @property
    def bytes(self) -> int:
        return self._search.bytes

    def find(self, question: str, count: int) -> list[Fact]:
        """The best notes, best first."""
        return [self.facts[number] for number in self._search.find(question, count)]


Turns = list[dict[str, str]]


def quoted(question: str, notes: Sequence[Fact]) -> Turns:
    """The notes as text in the prompt, best first."""
    lines = "\n".join(f"Q: {fact.question} A: {fact.answer}" for fact in notes)
    return [{"role": "user", "content": PROMPT.format(notes=lines, question=question)}]


def as_turns(question: str, notes: Sequence[Fact]) -> Turns:
    """The notes as earlier turns of the chat, best last: a small model repeats these better than it reads text."""
    turns: Turns = []
    for fact in reversed(notes):
        turns += [{"role": "user", "content": fact.question}, {"role": "assistant", "content": fact.answer}]
    return [*turns, {"role": "user", "content": question}]


class Retrieval:
    """The untouched backbone with the notes found for a question in front of it."""

    def __init__(
        self, backbone: Backbone, notes: Notes, count: int, write: Callable[[str, Sequence[Fact]], Turns]
    ) -> None:
        self.backbone, self.notes, self.count, self.write = backbone, notes, count, write
        self.bytes = notes.bytes
        self.details: dict[str, Any] = {"notes": count, "written": write.__name__}

    def ask(self, questions: Sequence[str], longest: int) -> list[Reply]:
        found = [self.notes.find(question, self.count) for question in questions]
        plain = plain_prompts(self.backbone, questions)
        prompts = [
            self.backbone.prompts.render(self.write(question, notes)) if notes else bare
            for question, notes, bare in zip(questions, found, plain, strict=True)
        ]
        answers = greedy(self.backbone, prompts, longest)
        return [
            Reply(answer, len(prompt) - len(bare), tuple(fact.id for fact in notes))
            for answer, prompt, bare, notes in zip(answers, prompts, plain, found, strict=True)
        ]


def teach(
    backbone: Backbone,
    facts: Sequence[Fact],
    goal: Goal,
    *,
    count: int,
    write: Callable[[str, Sequence[Fact]], Turns] = quoted,
) -> Retrieval:
    return Retrieval(backbone, Notes(facts), count, write)
