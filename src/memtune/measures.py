"""What a measurement is: a share of whole greedy outputs, its interval, and every output that was not as wanted."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from memtune.asking import Turns, said_by

__all__ = ["Case", "Failure", "Measure", "Outcome", "drawn", "wilson"]

Z95 = 1.959964  # standard deviations on either side that hold 95 %
Item = TypeVar("Item")


@dataclass(frozen=True)
class Case:
    """One question to ask. ``turns`` is the whole conversation, ``question`` its last user turn as a reader wants it.

    ``fact`` is the number of the fact that it asks for, ``expected`` its answer; None and "" where nothing is stored.
    """

    question: str
    turns: tuple[dict[str, str], ...]
    fact: int | None = None
    expected: str = ""

    @classmethod
    def alone(cls, question: str, fact: int | None = None, expected: str = "") -> Case:
        """The question in a fresh conversation."""
        return cls(question, (said_by("user", question.strip()),), fact, expected)

    def among(self, turns: Turns) -> Case:
        """The same case in another conversation."""
        return Case(self.question, tuple(turns), self.fact, self.expected)


@dataclass(frozen=True)
class Failure:
    """One output that was not as wanted, and what the router made of the question."""

    question: str
    expected: str  # the fact's answer, or the backbone's own output
    said: str | None  # None: nothing fired, and nothing was generated
    fired: str | None  # id of the fact that fired
    score: float
    threshold: float
    why: str


@dataclass(frozen=True)
class Outcome:
    """One question asked. ``distance`` is that of its wording from the nearest stored one, None where that says
    nothing."""

    score: float
    good: bool
    fired: bool
    generated: bool
    distance: float | None = None
    failure: Failure | None = None


@dataclass(frozen=True)
class Measure:
    """``good`` of ``asked`` outputs are as wanted; ``low`` and ``high`` bound the share (Wilson, 95 %).

    ``scores``, ``hits`` and ``distances`` run over the same questions.
    """

    key: str
    name: str
    group: str  # recall, unchanged or robustness
    source: str  # where the wordings come from: given, stored, synthetic or shipped
    wanted: str  # exact or unchanged
    asked: int
    good: int
    share: float
    low: float
    high: float
    fired: int
    generated: int  # outputs that were really generated; the others are known from the route
    scores: tuple[float, ...]
    hits: tuple[bool, ...]
    distances: tuple[float | None, ...]
    failures: tuple[Failure, ...]

    @classmethod
    def of(cls, key: str, name: str, group: str, source: str, outcomes: Sequence[Outcome]) -> Measure:
        good, asked = sum(outcome.good for outcome in outcomes), len(outcomes)
        low, high = wilson(good, asked)
        return cls(
            key=key,
            name=name,
            group=group,
            source=source,
            wanted="unchanged" if group == "unchanged" else "exact",
            asked=asked,
            good=good,
            share=good / asked if asked else 1.0,
            low=low,
            high=high,
            fired=sum(outcome.fired for outcome in outcomes),
            generated=sum(outcome.generated for outcome in outcomes),
            scores=tuple(round(outcome.score, 4) for outcome in outcomes),
            hits=tuple(outcome.good for outcome in outcomes),
            distances=tuple(outcome.distance for outcome in outcomes),
            failures=tuple(outcome.failure for outcome in outcomes if outcome.failure is not None),
        )


def wilson(good: int, asked: int) -> tuple[float, float]:
    """Bounds of a share at 95 %, honest near 0 and 1 and for few questions.

    >>> [round(bound, 3) for bound in wilson(99, 100)]
    [0.946, 0.998]
    """
    if not asked:
        return 0.0, 1.0
    share, z2 = good / asked, Z95 * Z95
    centre = share + z2 / (2 * asked)
    half = Z95 * math.sqrt(share * (1 - share) / asked + z2 / (4 * asked * asked))
    low, high = ((centre + side * half) / (1 + z2 / asked) for side in (-1, 1))
    return (low if good else 0.0), (high if good < asked else 1.0)


def drawn(items: Sequence[Item], count: int, seed: str) -> list[Item]:
    """``count`` of the items (0: all), one from each of as many equal stretches, in their order."""
    if not count or len(items) <= count:
        return list(items)
    draw = random.Random(seed)
    ends = [place * len(items) // count for place in range(count + 1)]
    return [items[draw.randrange(start, end)] for start, end in pairwise(ends)]
