"""Which exemplars stand before a question: those that are asked in the most similar words, never the fact itself.

SliCK takes exemplars of the same relation. A file of facts names no relations, but the questions show them: what is
left of a question without the words that only few others have is its *frame*. "What is the capital of Peru?" and "What
is the capital of Chad?" have the same. Facts of one frame share their sets, so that a model reads each set once.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from random import Random

from memtune.errors import DataError
from memtune.evidence.knowledge.fewshot import Exemplar
from memtune.fact import Fact
from memtune.facts import fold_question

__all__ = ["Sets", "draw_sets"]

Frame = tuple[str, ...]


@dataclass(frozen=True)
class Sets:
    """``sets``: exemplars, each set once; ``of``: for each fact the numbers of its sets."""

    sets: tuple[tuple[Exemplar, ...], ...]
    of: tuple[tuple[int, ...], ...]


def draw_sets(facts: Sequence[Fact], pool: Sequence[Fact], count: int, shots: int, seed: int) -> Sets:
    """``count`` different sets of ``shots`` exemplars for each fact, none with its question or its answer.

    They depend on the facts and on the seed, not on the order of the files. Raises DataError where the pool is too
    small.
    """
    least = next(size for size in range(shots, shots + count + 1) if comb(size, shots) >= count)
    frames = _Frames(pool, least)
    kinds: dict[Frame, list[int]] = defaultdict(list)
    for number, fact in enumerate(facts):
        kinds[frames.of(fact.question)].append(number)
    sets: list[tuple[Exemplar, ...]] = []
    of: dict[int, tuple[int, ...]] = {}
    for frame, numbers in sorted(kinds.items()):
        numbers.sort(key=lambda i: (facts[i].question, facts[i].answer))
        kind = _Kind(_near(frames, frame, [facts[i] for i in numbers], least), Random(f"{seed}:{frame}"), shots)
        for number in numbers:
            of[number] = tuple(len(sets) + own for own in kind.sets_for(facts[number], count))
        sets += kind.sets
    return Sets(tuple(sets), tuple(of[i] for i in range(len(facts))))


class _Frames:
    """The frames of a pool, and the facts of each."""

    def __init__(self, pool: Sequence[Fact], least: int) -> None:
        frequency = Counter(word for fact in pool for word in set(_words(fact.question)))
        self._common = {word for word, seen in frequency.items() if seen > least}
        self.facts: dict[Frame, list[Fact]] = defaultdict(list)
        for fact in sorted(pool, key=lambda fact: (fact.question, fact.answer)):
            self.facts[self.of(fact.question)].append(fact)

    def of(self, question: str) -> Frame:
        return tuple(sorted(self._common.intersection(_words(question))))

    def nearest(self, frame: Frame) -> list[Frame]:
        """All frames, first those that share the largest part of their words."""
        words = set(frame)

        def distance(other: Frame) -> tuple[float, Frame]:
            return -len(words & set(other)) / (len(words | set(other)) or 1), other

        return sorted(self.facts, key=distance)


def _words(question: str) -> list[str]:
    return re.findall(r"\w+", question.casefold())


def _near(frames: _Frames, frame: Frame, facts: Sequence[Fact], least: int) -> list[Fact]:
    """Exemplars of the nearest frames: so many that ``least`` are left for each of the facts."""
    near: list[Fact] = []
    lacking = list(facts)
    for other in frames.nearest(frame):
        near += frames.facts[other]
        if not (lacking := [fact for fact in lacking if _left(near, fact, least) < least]):
            return near
    shown = lacking[0]
    raise DataError(
        [f"{shown.source}: too few other facts to show before {shown.question!r}: {_left(near, shown, least)}"],
        hint=f"{least} are needed: take them from a file, --exemplars FILE, or ask for less: --sets 1 --shots 1"
        if least > 1
        else "one is needed: take it from a file, --exemplars FILE",
    )


def _left(near: Sequence[Fact], fact: Fact, enough: int) -> int:
    """How many of these may stand before the fact; it stops counting at ``enough``."""
    return sum(1 for _, _ in zip(_others(near, fact), range(enough), strict=False))


def _others(near: Sequence[Fact], fact: Fact) -> Iterator[Fact]:
    return (other for other in near if not _gives_away(other, fact))


def _gives_away(other: Fact | Exemplar, fact: Fact) -> bool:
    """Whether it has the question of the fact, or its answer."""
    same_answer = other.answer.casefold() == fact.answer.casefold()
    return same_answer or fold_question(other.question) == fold_question(fact.question)


class _Kind:
    """Draws the sets of facts that are asked alike; a set is drawn when the ones before it are not enough."""

    def __init__(self, near: Sequence[Fact], draw: Random, shots: int) -> None:
        self._near, self._draw, self._shots = near, draw, shots
        self._shown: Counter[str] = Counter()  # how often each question was
        self.sets: list[tuple[Exemplar, ...]] = []

    def sets_for(self, fact: Fact, count: int) -> list[int]:
        """Numbers of the first sets that give nothing of the fact away."""
        fit = [i for i, shown in enumerate(self.sets) if not any(_gives_away(one, fact) for one in shown)][:count]
        while len(fit) < count:
            fit.append(len(self.sets))
            self.sets.append(self._new(list(_others(self._near, fact))))
        return fit

    def _new(self, others: list[Fact]) -> tuple[Exemplar, ...]:
        """A set that was not drawn yet. Those that were shown least come first: so few sets serve many facts."""
        self._draw.shuffle(others)
        others.sort(key=lambda fact: self._shown[fact.question])
        before = [set(shown) for shown in self.sets]
        exemplars = [Exemplar(fact.question, fact.answer) for fact in others]
        new = next(shown for shown in combinations(exemplars, self._shots) if set(shown) not in before)
        self._shown.update(one.question for one in new)
        return new
