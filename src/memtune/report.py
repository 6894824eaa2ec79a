"""What eval found, as one record: promises that held or not, floors that were met or not, and the two files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from memtune.baseline import BaselineResult
from memtune.errors import ConfigError
from memtune.measures import Measure, wilson
from memtune.outputs import as_json, write_texts
from memtune.page import render
from memtune.project import REPORTS

__all__ = [
    "EvalResult",
    "Floor",
    "Floors",
    "InputFile",
    "Promise",
    "Scope",
    "floors_of",
    "promises_of",
    "write_report",
]

RECALL = ("paraphrase", "exact")
NEAR_MISS = ("near-miss", "near-miss-synthetic")
UNRELATED = ("unrelated", "unrelated-shipped")


@dataclass(frozen=True)
class InputFile:
    role: str  # the option that named it
    path: str
    bytes: int


@dataclass(frozen=True)
class Promise:
    """What ingest expected beside what was measured; ``low`` and ``high`` bound the measured share (95 %)."""

    name: str
    measure: str  # key of the measure that it is held against
    expected: float
    measured: float
    low: float
    high: float
    held: bool  # the expected share is within the bounds, or the measured one is better


@dataclass(frozen=True)
class Floors:
    """The least shares that a user asks for; None: not asked."""

    recall: float | None = None
    exact: float | None = None
    near_miss: float | None = None
    unrelated: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not 0 <= value <= 1:
                option = f"--min-{field.name.replace('_', '-')}"
                raise ConfigError(f"{option} is {value}", hint=f"{option} takes a share between 0 and 1, such as 0.99")


@dataclass(frozen=True)
class Floor:
    """One floor and what was measured. ``option`` is the flag that asked for it."""

    option: str
    measure: str
    wanted: float
    good: int
    asked: int
    share: float
    met: bool

    def __str__(self) -> str:
        return f"{self.option} {self.wanted:g}: {self.measure} {self.good:,} of {self.asked:,} ({self.share:.2%})"


@dataclass(frozen=True)
class EvalResult:
    """Everything that was measured, and on what."""

    project: str
    model: str
    fingerprint: str
    versions: Mapping[str, str]
    seed: int
    verify: str
    sample: int  # questions of a measure at most, 0 for all
    longest: int  # tokens of an output that should be unchanged
    files: tuple[InputFile, ...]
    facts: int
    learned: int
    until_loss: float  # nats per answer token
    threshold: float
    measures: tuple[Measure, ...]
    promises: tuple[Promise, ...]
    floors: tuple[Floor, ...]
    losses: tuple[float, ...]  # nats per answer token, of every fact; infinite where it was never fitted
    notes: tuple[str, ...]  # what was left out, and why
    seconds: float
    page: str
    json: str
    baseline: BaselineResult | None = None  # None: none was asked

    @property
    def met(self) -> bool:
        return all(floor.met for floor in self.floors)


@dataclass(frozen=True)
class Scope:
    """How much is asked. ``sample``: questions of a measure, 0 for all; ``longest``: tokens of an unchanged output."""

    sample: int = 300
    longest: int = 32

    def __post_init__(self) -> None:
        if self.sample < 0:
            raise ConfigError(f"sample is {self.sample}", hint="--sample takes a number of questions, 0 for all")
        if self.longest < 1:
            raise ConfigError(f"longest is {self.longest}", hint="--longest takes a number of tokens, 1 or more")


def promises_of(measures: Sequence[Measure], recall: float, false_fire: float) -> tuple[Promise, ...]:
    """Recall against the given paraphrases, else made-up rewordings; false fire against near misses."""
    found = []
    if (wordings := _first(measures, ("paraphrase", "reworded"))) is not None:
        held = recall <= wordings.high
        bounds = (wordings.share, wordings.low, wordings.high)
        found.append(Promise("recall", wordings.key, recall, *bounds, held))
    if (near := _first(measures, NEAR_MISS)) is not None:
        low, high = wilson(near.fired, near.asked)
        found.append(Promise("false fire", near.key, false_fire, near.fired / near.asked, low, high, low <= false_fire))
    return tuple(found)


def floors_of(measures: Sequence[Measure], floors: Floors) -> tuple[Floor, ...]:
    """Each floor that was asked for, against the user's own file where there is one, else memtune's own questions.

    A floor on something that was never asked is missed: a check that measured nothing proves nothing.
    """
    wanted = (
        ("--min-recall", floors.recall, RECALL),
        ("--min-exact", floors.exact, ("exact",)),
        ("--min-near-miss", floors.near_miss, NEAR_MISS),
        ("--min-unrelated", floors.unrelated, UNRELATED),
    )
    found = []
    for option, least, keys in wanted:
        if least is not None:
            measure = _first(measures, keys)
            name, good, asked = (measure.key, measure.good, measure.asked) if measure else ("nothing asked", 0, 0)
            share = good / asked if asked else 0.0
            found.append(Floor(option, name, least, good, asked, share, bool(asked) and share >= least))
    return tuple(found)


def _first(measures: Sequence[Measure], keys: Sequence[str]) -> Measure | None:
    by_key = {measure.key: measure for measure in measures if measure.asked}
    return next((by_key[key] for key in keys if key in by_key), None)


def write_report(result: EvalResult, out: Path) -> None:
    """``eval.json`` and ``eval.html``, each whole or as it was before."""
    record: dict[str, Any] = asdict(result) | {"met": result.met}
    write_texts(out, dict(zip(REPORTS, (render(record), as_json(record)), strict=True)))
