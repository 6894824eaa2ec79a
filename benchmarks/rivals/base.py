"""What every method of the side-by-side run has in common: it is taught facts, then it is asked questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from memtune.asking import Answer
from memtune.backbone import Backbone
from memtune.evidence.training import Goal
from memtune.facts import Fact


@dataclass(frozen=True)
class Reply:
    """An answer, what it cost in prompt tokens, and the ids of the facts that took part where a method can tell."""

    answer: Answer
    extra_tokens: int = 0
    used: tuple[str, ...] = ()


class Rival(Protocol):
    """A method after teaching. ``bytes``: all that has to be kept beside the backbone. ``details``: for the record."""

    bytes: int
    details: dict[str, Any]

    def ask(self, questions: Sequence[str], longest: int) -> list[Reply]: ...


@dataclass(frozen=True)
class Method:
    """``prepare`` is what is done once for a model, whatever the facts: it is timed apart."""

    says: str
    teach: Callable[[Backbone, Sequence[Fact], Goal], Rival]
    prepare: Callable[[Backbone], None] | None = None


def plain_prompts(backbone: Backbone, questions: Sequence[str]) -> list[tuple[int, ...]]:
    """Each question alone in a fresh conversation."""
    prompts = backbone.prompts
    return [prompts.format.prompt(prompts.question(text)) for text in questions]
