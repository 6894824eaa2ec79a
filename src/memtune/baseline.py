"""Eval's questions put to a baseline: the untouched backbone with the facts that a search finds in its prompt.

They stand there as earlier turns of the chat: that is how a small model repeats them best (docs/benchmarks.md).

What it costs is measured beside what memtune costs, on the same questions: tokens of the prompt and seconds a question.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from memtune.asking import Asker, Turns
from memtune.bench import SPARE, Told, converse
from memtune.errors import ConfigError
from memtune.evidence.retrieval import Notes, as_turns
from memtune.fact import Fact
from memtune.measures import Case, Measure, drawn, wilson

__all__ = ["Baseline", "BaselineMeasure", "BaselineResult", "Rag"]

BASELINES = ("rag",)
TIMED = 64  # questions of a measure on which seconds are compared


@dataclass(frozen=True)
class Baseline:
    """Which baseline is asked as well; None: none. ``notes``: facts in its prompt at most."""

    name: str | None = None
    notes: int = 3

    def __post_init__(self) -> None:
        if self.name is not None and self.name not in BASELINES:
            raise ConfigError(f"--baseline is {self.name!r}", hint=f"--baseline takes one of: {', '.join(BASELINES)}")
        if self.notes < 1:
            raise ConfigError(f"notes is {self.notes}", hint="--notes takes a number of facts, 1 or more")


@dataclass(frozen=True)
class BaselineMeasure:
    """One measure of eval, answered by the baseline. ``low`` and ``high`` bound the share (Wilson, 95 %).

    ``memtune_share`` is what memtune reached on the very same questions. The seconds are of a question, with the same
    batches and limits, over ``timed`` of them.
    """

    key: str
    name: str
    source: str
    wanted: str
    asked: int
    good: int
    share: float
    low: float
    high: float
    memtune_share: float
    contained: float | None  # share of the outputs in which the answer stands; None where no fact is asked for
    found: float | None  # share of the questions whose fact was among the notes; None as well
    extra_tokens: float  # of the prompt, a question
    seconds: float
    memtune_seconds: float
    timed: int


@dataclass(frozen=True)
class BaselineResult:
    """``bytes`` of the index, beside which the facts themselves are kept."""

    name: str
    notes: int
    bytes: int
    measures: tuple[BaselineMeasure, ...]


@dataclass(frozen=True)
class _Noted:
    """A question with its notes: how it is asked, and the tokens that they add to its prompt."""

    turns: Turns
    extra: int
    ids: frozenset[str]


class Rag:
    """Retrieval over the facts of a project. ``room``: tokens that the model reads; notes beyond it are left out."""

    def __init__(self, asker: Asker, facts: Sequence[Fact], baseline: Baseline, longest: int, room: int) -> None:
        self.asker, self.facts, self.count = asker, facts, baseline.notes
        self.longest, self.room = longest, room
        self.notes = Notes(facts)

    def beside(
        self, measures: Sequence[Measure], asked: Mapping[str, Sequence[Case]], progress: Callable[[str, int], Told]
    ) -> BaselineResult:
        """Every measure on its own questions; ``progress``: given a stage and its total, whom to tell how far it is."""
        found = []
        for measure in measures:
            cases = asked[measure.key]
            told = progress(f"retrieval, {measure.name}", self.generations(measure, cases))
            found.append(self.measure(measure, cases, told))
        return BaselineResult("rag", self.count, self.notes.bytes, tuple(found))

    def measure(self, measure: Measure, cases: Sequence[Case], told: Told) -> BaselineMeasure:
        """The same questions that ``measure`` asked, generated one and all."""
        noted = [self._noted(case) for case in cases]
        limits = [self._limit(case) for case in cases]
        answers = converse(self.asker, [one.turns for one in noted], limits, told, memory=False)
        if measure.wanted == "exact":
            hits = [a.stopped and a.text == case.expected for a, case in zip(answers, cases, strict=True)]
        else:
            own = converse(self.asker, [case.turns for case in cases], limits, told, memory=False)
            hits = [one.ids == other.ids for one, other in zip(answers, own, strict=True)]
        good, asked = sum(hits), len(cases)
        low, high = wilson(good, asked)
        seconds, memtune_seconds, timed = self._timed(cases, limits)
        return BaselineMeasure(
            key=measure.key,
            name=measure.name,
            source=measure.source,
            wanted=measure.wanted,
            asked=asked,
            good=good,
            share=good / asked,
            low=low,
            high=high,
            memtune_share=measure.share,
            contained=_share(
                [case.expected in a.text for a, case in zip(answers, cases, strict=True) if case.expected]
            ),
            found=_share(
                [self._named(case) in one.ids for case, one in zip(cases, noted, strict=True) if case.expected]
            ),
            extra_tokens=sum(one.extra for one in noted) / asked,
            seconds=seconds,
            memtune_seconds=memtune_seconds,
            timed=timed,
        )

    def generations(self, measure: Measure, cases: Sequence[Case]) -> int:
        """How many outputs ``measure`` reports to its ``told``."""
        return len(cases) * (1 if measure.wanted == "exact" else 2)

    def _noted(self, case: Case) -> _Noted:
        found = self.notes.find(case.question, self.count)
        bare = self._length(case.turns)
        while True:
            turns = as_turns(case.question.strip(), found) if found else case.turns
            length = self._length(turns)
            if not found or length + self._limit(case) <= self.room:
                return _Noted(turns, length - bare, frozenset(fact.id for fact in found))
            found = found[:-1]

    def _length(self, turns: Turns) -> int:
        return len(self.asker.backbone.prompts.render(list(turns)))

    def _limit(self, case: Case) -> int:
        if case.fact is None:
            return self.longest
        return self.asker.memory.bank.experts_of(case.fact) + SPARE

    def _named(self, case: Case) -> str | None:
        return None if case.fact is None else self.facts[case.fact].id

    def _timed(self, cases: Sequence[Case], limits: Sequence[int]) -> tuple[float, float, int]:
        """Seconds a question: search, prompt and answer of the baseline; route and answer of memtune."""
        picked = drawn(range(len(cases)), TIMED, "timed")
        room = [limits[i] for i in picked]
        plain = [cases[i].turns for i in picked]

        def baseline() -> None:
            self.asker.converse([self._noted(cases[i]).turns for i in picked], room, memory=False)

        def memtune() -> None:
            self.asker.converse(plain, room)

        return _seconds(baseline) / len(picked), _seconds(memtune) / len(picked), len(picked)


def _share(hits: Sequence[bool]) -> float | None:
    return sum(hits) / len(hits) if hits else None


def _seconds(work: Callable[[], None]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started
