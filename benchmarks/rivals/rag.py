"""Retrieval, as ``memtune eval --baseline rag`` does it, and with the best few facts quoted as text instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memtune.asking import Turns, greedy, said_by
from memtune.backbone import Backbone
from memtune.evidence.retrieval import Notes, Writer, as_turns
from memtune.evidence.training import Goal
from memtune.facts import Fact

from .base import Reply, plain_prompts

__all__ = ["Retrieval", "as_turns", "quoted", "teach"]

PROMPT = """\
{question}

Use these notes and answer with the note's answer exactly:
{notes}"""  # the best of four wordings, tried on other facts


def quoted(question: str, notes: Sequence[Fact]) -> Turns:
    """The notes as text in the prompt, best first; without notes, the question alone."""
    lines = "\n".join(f"Q: {fact.question} A: {fact.answer}" for fact in notes)
    return [said_by("user", PROMPT.format(notes=lines, question=question) if notes else question)]


class Retrieval:
    """The untouched backbone with the notes found for a question in front of it."""

    def __init__(self, backbone: Backbone, notes: Notes, count: int, write: Writer) -> None:
        self.backbone, self.notes, self.count, self.write = backbone, notes, count, write
        self.bytes = notes.bytes
        self.details: dict[str, Any] = {"notes": count, "written": getattr(write, "__name__", "")}

    def ask(self, questions: Sequence[str], longest: int) -> list[Reply]:
        found = [self.notes.find(question, self.count) for question in questions]
        plain = plain_prompts(self.backbone, questions)
        prompts = [
            self.backbone.prompts.render(list(self.write(question, notes))) if notes else bare
            for question, notes, bare in zip(questions, found, plain, strict=True)
        ]
        answers = greedy(self.backbone, prompts, longest)
        return [
            Reply(answer, len(prompt) - len(bare), tuple(fact.id for fact in notes))
            for answer, prompt, bare, notes in zip(answers, prompts, plain, found, strict=True)
        ]


def teach(backbone: Backbone, facts: Sequence[Fact], goal: Goal, *, count: int, write: Writer = quoted) -> Retrieval:
    return Retrieval(backbone, Notes(facts), count, write)
