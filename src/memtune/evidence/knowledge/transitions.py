"""What changed between two measurements of the same facts: a 4 x 4 table of categories for each group of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from memtune.evidence.knowledge.slick import CATEGORIES, Knowledge
from memtune.evidence.knowledge.survey import GROUPS, TAUGHT, Survey
from memtune.fact import Fact

__all__ = ["Moved", "Transition", "damage", "transitions"]


@dataclass(frozen=True)
class Moved:
    """A fact whose category is another one now."""

    id: str
    question: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.id}: {self.before} before, {self.after} now: {self.question}"


@dataclass(frozen=True)
class Transition:
    """One group. ``counts[i][j]``: facts that went from category i to j, in the order of CATEGORIES."""

    group: str
    counts: tuple[tuple[int, ...], ...]
    moved: tuple[Moved, ...]
    alone_before: int  # facts that are said exactly when they are asked without exemplars
    alone_after: int

    @property
    def facts(self) -> int:
        return sum(map(sum, self.counts))


def transitions(survey: Survey, before: Sequence[Knowledge], after: Sequence[Knowledge]) -> tuple[Transition, ...]:
    """One for each group that has facts."""
    groups = [(name, survey.group(name)) for name in GROUPS]
    return tuple(_transition(name, survey.facts, numbers, before, after) for name, numbers in groups if numbers)


def damage(found: Sequence[Transition]) -> tuple[Moved, ...]:
    """The facts outside those that were taught that are known better or worse than before."""
    return tuple(moved for one in found if one.group != TAUGHT for moved in one.moved)


def _transition(
    group: str, facts: Sequence[Fact], numbers: Sequence[int], before: Sequence[Knowledge], after: Sequence[Knowledge]
) -> Transition:
    pairs = [(i, before[i].category, after[i].category) for i in numbers]
    counts = Counter((was, now) for _, was, now in pairs)
    return Transition(
        group,
        tuple(tuple(counts[was, now] for now in CATEGORIES) for was in CATEGORIES),
        tuple(Moved(facts[i].id, facts[i].question, was, now) for i, was, now in pairs if was != now),
        sum(before[i].alone for i in numbers),
        sum(after[i].alone for i in numbers),
    )
